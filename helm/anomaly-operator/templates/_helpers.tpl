{{- define "anomaly.labels" -}}
app.kubernetes.io/name: anomaly-operator
app.kubernetes.io/part-of: anomaly-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "anomaly.selector" -}}
app.kubernetes.io/name: anomaly-operator
{{- end }}

{{- define "anomaly.rules" -}}
- apiGroups: [anomalyops.io]
  resources: [anomalyexperiments, anomalyinferences]
  verbs: [list, watch]
# The trials of a sweep are experiments that the operator makes, suspends with the sweep, and deletes at its early end.
- apiGroups: [anomalyops.io]
  resources: [anomalyexperiments]
  verbs: [get, create, patch, delete]
- apiGroups: [anomalyops.io]
  resources: [anomalyexperiments/status, anomalyinferences/status]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# Finished pods are deleted where runPolicy.retainPods says so.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
# Why a Job makes no pods, and why a pod does not start, stands in their Events alone.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{- define "anomaly.tokenRule" -}}
# Whether a token that comes with progress belongs to the pod that it claims.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end }}
