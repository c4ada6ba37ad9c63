"use strict";
/* Decides anew at another threshold, as the run does: an image is anomalous when score >= threshold. What the page showed
   before is put back when the threshold is the run's again. */

const data = JSON.parse(document.getElementById("scores").textContent);
const labels = data.labels.map((label) => ({ ...label, scores: decoded(label.scores) }));
const good = labels.filter((label) => label.defect === false);
const defective = labels.filter((label) => label.defect === true);
const bar = document.getElementById("threshold");
const slider = bar.querySelector("input[type=range]");
const exact = bar.querySelector("input[type=number]");
const originals = new Map();
let threshold = data.threshold;

function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

/* The index of the first of the ascending scores that is at least (or, with `above`, above) a value. */
function firstAt(scores, value, above = false) {
  let low = 0, high = scores.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (scores[middle] < value || (above && scores[middle] === value)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function anomalous(label, at) {
  const share = 1 - firstAt(label.scores, at) / label.scores.length;
  return Math.round(share * label.images);
}

const total = (chosen, value) => chosen.reduce((sum, label) => sum + value(label), 0);
const images = (chosen) => total(chosen, (label) => label.images);
const ratio = (part, whole) => (whole ? part / whole : 0);

function counted(at, kinds = defective) {
  const found = total(kinds, (label) => anomalous(label, at));
  const alarms = total(good, (label) => anomalous(label, at));
  return { found, alarms, missed: images(kinds) - found, passed: images(good) - alarms };
}

function rates({ found, alarms, missed, passed }) {
  const all = found + alarms + missed + passed;
  return {
    Recall: ratio(found, found + missed),
    Precision: ratio(found, found + alarms),
    F1Score: ratio(2 * found, 2 * found + alarms + missed),
    Accuracy: ratio(found + passed, all),
    falseAlarmRate: ratio(alarms, alarms + passed),
  };
}

function show(element, text) {
  if (!originals.has(element)) originals.set(element, element.textContent);
  element.textContent = threshold === data.threshold ? originals.get(element) : text;
}

function each(selector, action) {
  document.querySelectorAll(selector).forEach(action);
}

function showCounts(counts) {
  const right = counts.found + counts.passed;
  const shown = { ...counts, right, anomalous: total(labels, (label) => anomalous(label, threshold)) };
  each("[data-live]", (element) => show(element, String(shown[element.dataset.live])));
  each("[data-label]", (element) => show(element, String(anomalous(labels[element.dataset.label], threshold))));
  each("td[data-wrong]", (cell) => cell.classList.toggle("wrong", shown[cell.dataset.wrong] > 0));
}

function showRates(found) {
  each("[data-metric]", (element) => {
    const name = element.dataset.metric.replace("image-", "");
    if (name in found) show(element, found[name].toFixed(4));
  });
  each("[data-interval]", (element) => {
    element.hidden = threshold !== data.threshold && element.dataset.interval in found;
  });
  each("[data-kind]", (element) => {
    const ofKind = rates(counted(threshold, [labels[element.dataset.kind]]));
    if (element.dataset.name in ofKind) show(element, ofKind[element.dataset.name].toFixed(4));
  });
}

function frameOf(chart) {
  const frame = chart.querySelector(".frame");
  const [left, top, width, height] = ["x", "y", "width", "height"].map((name) => Number(frame.getAttribute(name)));
  return { left, top, width, height };
}

function moveLine(mark) {
  const { left, width } = frameOf(mark.ownerSVGElement);
  const x = left + ratio(threshold - data.low, data.high - data.low) * width;
  const line = mark.querySelector("line"), name = mark.querySelector("text");
  ["x1", "x2"].forEach((end) => line.setAttribute(end, x));
  const isRight = x > left + width / 2;
  name.setAttribute("x", x + (isRight ? -4 : 4));
  name.setAttribute("text-anchor", isRight ? "end" : "start");
}

function moveDot(chartName, across, up) {
  const dot = document.querySelector(`svg[aria-label="${chartName}"] .dot.image`);
  if (!dot) return;
  const { left, top, width, height } = frameOf(dot.ownerSVGElement);
  dot.setAttribute("cx", left + across * width);
  dot.setAttribute("cy", top + (1 - up) * height);
}

/* How a picture was decided: wrong ones first, furthest from the threshold first; then the closest of the others. */
function judged(figure) {
  const score = Number(figure.dataset.score), isAnomalous = score >= threshold;
  const isWrong = figure.dataset.defect !== "null" && (figure.dataset.defect === "true") !== isAnomalous;
  const distance = Math.abs(score - threshold);
  return { figure, score, isAnomalous, isWrong, order: isWrong ? -distance : distance };
}

function showPictures() {
  const gallery = document.querySelector(".gallery");
  if (!gallery) return;
  const found = [...gallery.children].map(judged);
  const isLabelled = good.length + defective.length > 0;
  found.sort((a, b) => (isLabelled ? b.isWrong - a.isWrong || a.order - b.order : b.score - a.score));
  for (const { figure, isAnomalous, isWrong } of found) {
    const word = figure.querySelector("[data-decision]"), picture = figure.querySelector("img");
    word.textContent = isAnomalous ? "anomalous" : "good";
    word.className = isAnomalous ? "defect" : "good";
    picture.alt = picture.alt.replace(/decided \w+$/, `decided ${word.textContent}`);
    figure.classList.toggle("mistake", isWrong);
  }
  gallery.append(...found.map(({ figure }) => figure));
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function outcome(counts, found) {
  const parts = [];
  if (defective.length) parts.push(`${counts.found} of ${images(defective)} defects found (${percent(found.Recall)})`);
  if (good.length) parts.push(`${counts.alarms} of ${images(good)} good images a false alarm (${percent(found.falseAlarmRate)})`);
  if (!parts.length) parts.push(`${total(labels, (label) => anomalous(label, threshold))} images are anomalous`);
  return parts.join("; ");
}

function manifest() {
  const pixel = data.pixel === null ? "" : `, pixel: ${data.pixel}`;
  return `evaluation: {threshold: {method: manual, image: ${threshold}${pixel}}}`;
}

function moveTo(value) {
  if (!Number.isFinite(value)) return;
  threshold = value;
  slider.value = exact.value = value;
  const counts = counted(value), found = rates(counts), isMoved = value !== data.threshold;
  bar.querySelector("[data-outcome]").textContent = outcome(counts, found);
  slider.setAttribute("aria-valuetext", `${value.toPrecision(6)}: ${outcome(counts, found)}`);
  bar.querySelector("[data-manifest]").textContent = manifest();
  bar.querySelector("[data-moved]").hidden = !isMoved;
  bar.querySelector("button[data-to=run]").disabled = !isMoved;
  showCounts(counts);
  showRates(found);
  each(".threshold-mark", moveLine);
  moveDot("ROC curve", found.falseAlarmRate, found.Recall);
  moveDot("Precision and recall", found.Recall, found.Precision);
  showPictures();
}

/* The next threshold at which another image is decided otherwise: an image's score, which is anomalous itself. */
function nextDecision(isUp) {
  const near = labels.map(({ scores }) => scores[isUp ? firstAt(scores, threshold, true) : firstAt(scores, threshold) - 1]);
  const found = near.filter((score) => score !== undefined);
  if (found.length) return isUp ? Math.min(...found) : Math.max(...found);
  return isUp ? data.high : data.low;
}

/* The lowest of the defects' scores with the best F1, which the adaptive threshold is. */
function bestF1() {
  const candidates = defective.flatMap(({ scores }) => [...scores]).sort((a, b) => a - b);
  let best = -1, where = data.threshold;
  for (const score of candidates) {
    const f1 = rates(counted(score)).F1Score;
    if (f1 > best) [best, where] = [f1, score];
  }
  return where;
}

/* The lowest threshold without a false alarm that a float32 can be: just above the highest good score. */
function aboveAllGood() {
  const number = new Float32Array([Math.max(...good.map(({ scores }) => scores[scores.length - 1]))]);
  const bits = new Int32Array(number.buffer);
  if (number[0] === 0) bits[0] = 1;
  else bits[0] += number[0] > 0 ? 1 : -1;
  return number[0];
}

const destinations = {
  run: { from: labels, find: () => data.threshold },
  bestF1: { from: defective, find: bestF1 },
  allFound: { from: defective, find: () => Math.min(...defective.map(({ scores }) => scores[0])) },
  noAlarm: { from: good, find: aboveAllGood },
};

for (const button of bar.querySelectorAll("button")) {
  const { from, find } = destinations[button.dataset.to];
  button.hidden = !from.length;
  button.addEventListener("click", () => moveTo(find()));
}
slider.min = data.low;
slider.max = data.high;
slider.addEventListener("input", () => moveTo(slider.valueAsNumber));
slider.addEventListener("keydown", (event) => {
  const isUp = ["ArrowRight", "ArrowUp"].includes(event.key);
  if (!isUp && !["ArrowLeft", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  moveTo(nextDecision(isUp));
});
exact.addEventListener("change", () => moveTo(exact.valueAsNumber));
each(".threshold-mark", (mark) => {
  const chart = mark.ownerSVGElement;
  const follow = (event) => {
    if (!(event.buttons & 1)) return;
    const { left, width } = frameOf(chart), box = chart.getBoundingClientRect();
    const share = (((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width - left) / width;
    moveTo(data.low + Math.min(1, Math.max(0, share)) * (data.high - data.low));
  };
  chart.classList.add("movable");
  chart.addEventListener("pointermove", follow);
  chart.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    chart.setPointerCapture(event.pointerId);
    follow(event);
  });
});
bar.hidden = false;
moveTo(threshold);
