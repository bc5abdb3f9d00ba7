{{- define "pagevec.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "pagevec.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pagevec.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "pagevec.selector" . }}
{{- end }}

{{- define "pagevec.keysSecret" -}}
{{- if and .Values.keys.existingSecret .Values.keys.values }}
{{- fail "give the keys with keys.existingSecret or with keys.values, not with both" }}
{{- else if .Values.keys.existingSecret }}{{ .Values.keys.existingSecret }}
{{- else if .Values.keys.values }}{{ include "pagevec.name" . }}-keys
{{- else }}
{{- fail "there is no key: name a Secret with keys.existingSecret (docs/kubernetes.md)" }}
{{- end }}
{{- end }}

{{- define "pagevec.claim" -}}
{{- default (include "pagevec.name" .) .Values.persistence.existingClaim }}
{{- end }}

{{/* A value as text. Helm reads numbers as floats, and would write large ones as 5.3e+08. */}}
{{- define "pagevec.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- define "pagevec.check" -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) (eq .Values.strategy "RollingUpdate") }}
{{- $own := and .Values.persistence.enabled (not .Values.persistence.existingClaim) }}
{{- if and $own $several (not (has "ReadWriteMany" .Values.persistence.accessModes)) }}
{{- fail "several pods need a volume that all of them can write: persistence.accessModes with ReadWriteMany, or persistence.existingClaim" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.queuedInputs) (not .Values.autoscaling.cpuPercent) }}
{{- fail "autoscaling needs autoscaling.queuedInputs or autoscaling.cpuPercent" }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}
{{- fail "ingress.host is missing: the name under which callers reach the service" }}
{{- end }}
{{- end }}
