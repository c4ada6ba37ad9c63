"""torch's compiler is not imported by a training in one pass, and is the real one for whoever wants it."""

import subprocess
import sys
from pathlib import Path

from support.textures import EXPERIMENT, write_manifest, write_textures

AFTER_A_RUN = """
import sys
from pathlib import Path
from anomaly_runner.local import run_locally
assert run_locally(Path(sys.argv[1]), Path(sys.argv[2])) == 0
imported = sorted(name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor")))
assert "timm" in sys.modules and "torchvision" in sys.modules
assert imported == [], imported
"""
WANTED_AFTERWARDS = """
import sys
import anomaly_runner.models.backbone
import torch
assert "torch._dynamo" not in sys.modules
double = torch.compile(lambda value: 2 * value, backend="eager")
assert double(torch.ones(3)).tolist() == [2, 2, 2]
import torch._dynamo.utils, torchvision
roi = sys.modules["torchvision.ops.roi_align"]
assert roi.is_compile_supported("cpu") is torch._dynamo.utils.is_compile_supported("cpu")
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
network = NaFlexVit(NaFlexVitCfg(embed_dim=24, depth=1, num_heads=2), num_classes=2).eval()
assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
"""
WANTED_INSIDE = """
from anomaly_runner.models.lazy_compiler import lazy_compiler
with lazy_compiler():
    import torch._dynamo
    from torch._dynamo import eval_frame
    assert torch._dynamo.config.cache_size_limit > 0
import sys
assert sys.modules["torch._dynamo"].__file__ and eval_frame.__file__
"""


def run_python(program: str, *arguments: object) -> None:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_training_in_one_pass_does_without_the_compiler(tmp_path: Path) -> None:
    write_textures(tmp_path / "data/textures")
    manifest = write_manifest(tmp_path, EXPERIMENT, lambda made: made["spec"].update(export={"types": []}))
    run_python(AFTER_A_RUN, manifest, tmp_path)


def test_the_compiler_works_once_it_is_wanted() -> None:
    run_python(WANTED_AFTERWARDS)


def test_an_import_that_wants_more_of_the_compiler_gets_it() -> None:
    run_python(WANTED_INSIDE)
