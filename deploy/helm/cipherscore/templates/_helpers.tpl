{{- define "cipherscore.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "cipherscore.selector" -}}
app.kubernetes.io/name: cipherscore
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: worker
{{- end -}}

{{- define "cipherscore.labels" -}}
{{ include "cipherscore.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "cipherscore.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "cipherscore.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "cipherscore.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The budget and what comes on top, in MiB. */}}
{{- define "cipherscore.memory" -}}
{{- with .Values.memory -}}
{{- add .budgetMiB (max .extraMinimumMiB (div (mul .budgetMiB .extraPercent) 100)) -}}
{{- end -}}
{{- end -}}

{{/*
A section of worker.toml from a map: numbers are whole ones, and the other kinds are written as in
JSON, which is TOML too.
*/}}
{{- define "cipherscore.section" -}}
{{- range $key, $value := . }}
{{ $key }} = {{ if kindIs "float64" $value }}{{ int64 $value }}{{ else }}{{ toJson $value }}{{ end }}
{{- end }}
{{- end -}}

{{/* A service's section of worker.toml; of (list service-name service-values). */}}
{{- define "cipherscore.service" -}}
{{- $folder := printf "/run/secrets/cipherscore/%s" (index . 0) -}}
{{- $values := index . 1 -}}
url_file = {{ printf "%s/url" $folder | quote }}
{{- if $values.tls.secretName }}
{{- if $values.tls.caKey }}
ca_file = {{ printf "%s/ca.pem" $folder | quote }}
{{- end }}
{{- if $values.tls.certificateKey }}
certificate_file = {{ printf "%s/certificate.pem" $folder | quote }}
{{- end }}
{{- if $values.tls.privateKeyKey }}
key_file = {{ printf "%s/key.pem" $folder | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Its secrets, as sources of a projected volume. */}}
{{- define "cipherscore.secrets" -}}
{{- $name := index . 0 -}}
{{- $values := index . 1 -}}
- secret:
    name: {{ $values.secretName }}
    items:
      - {key: {{ $values.urlKey | quote }}, path: {{ $name }}/url}
{{- with $values.tls }}
{{- if .secretName }}
- secret:
    name: {{ .secretName }}
    items:
      {{- if .caKey }}
      - {key: {{ .caKey | quote }}, path: {{ $name }}/ca.pem}
      {{- end }}
      {{- if .certificateKey }}
      - {key: {{ .certificateKey | quote }}, path: {{ $name }}/certificate.pem}
      {{- end }}
      {{- if .privateKeyKey }}
      - {key: {{ .privateKeyKey | quote }}, path: {{ $name }}/key.pem}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}
