{{- define "drover-node.labels" -}}
app.kubernetes.io/name: drover-node
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "drover-node.selector" -}}
app.kubernetes.io/name: drover-node
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "drover-node.fullname" -}}
{{- if contains "drover-node" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-drover-node" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "drover-node.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}{{ else if .Values.serviceAccount.create }}{{ include "drover-node.fullname" . }}{{ else }}default{{ end }}
{{- end }}

{{/* application.yaml; what .Values.config has goes over what the other values make of it. */}}
{{- define "drover-node.config" -}}
{{- if .Values.config }}
{{- toYaml (dict "app" (mergeOverwrite (fromYaml (include "drover-node.base" .)).app .Values.config)) }}
{{- else }}
{{- include "drover-node.base" . }}
{{- end }}
{{- end }}

{{- define "drover-node.base" -}}
app:
  engine: {{ .Values.engine.kind }}
  {{- if .Values.engine.criSocket }}
  cri:
    sock: [{{ printf "unix://%s" .Values.engine.criSocket | quote }}]
  {{- end }}
  {{- if .Values.engine.dockerSocket }}
  docker:
    sock: {{ printf "unix://%s" .Values.engine.dockerSocket | quote }}
  {{- end }}
  http:
    port: {{ .Values.ports.http }}
    tls: {{ .Values.tls.mode }}
    token-key-file: /etc/drover/token/{{ .Values.tokenKey.key }}
    {{- if eq .Values.tls.mode "files" }}
    cert-file: /etc/drover/tls/tls.crt
    key-file: /etc/drover/tls/tls.key
    {{- end }}
  debug:
    port: {{ .Values.ports.debug }}
  qos:
    path: /data/cgroup
  {{- if .Values.ports.logs }}
  logs:
    port: {{ .Values.ports.logs }}
    root: {{ .Values.logs.root | quote }}
    token-key-file: /etc/drover/token/{{ .Values.tokenKey.key }}
    spill-dir: /tmp
    {{- with .Values.logs.stdinRoots }}
    stdin-roots: {{ toJson . }}
    {{- end }}
  {{- end }}
  pods:
    map: "on"
    apiserver: {{ .Values.pods.apiserver }}
    {{- with .Values.pods.kubelet }}
    kubelet: {{ . | quote }}
    {{- if hasPrefix "https:" . }}
    kubelet-token-file: /var/run/secrets/kubernetes.io/serviceaccount/token
    kubelet-ca-file: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    {{- end }}
    {{- end }}
    sidecars: {{ toJson .Values.pods.sidecars }}
  prestop:
    dir: {{ .Values.prestopDir | quote }}
  # A pod that is not privileged cannot open the kernel's log.
  oom-kmsg-path: "-"
  log:
    format: json
{{- end }}
