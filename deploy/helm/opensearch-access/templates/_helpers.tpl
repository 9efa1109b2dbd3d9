{{- /* The labels that selectors use; the argument is the component. */ -}}
{{- define "opensearch-access.selector" -}}
app.kubernetes.io/name: opensearch-access
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- /* All labels, of (list ROOT COMPONENT). */ -}}
{{- define "opensearch-access.labels" -}}
{{- $root := index . 0 -}}
{{ include "opensearch-access.selector" (index . 1) }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The metadata of an object of a namespace, of (list ROOT COMPONENT NAME). */ -}}
{{- define "opensearch-access.metadata" -}}
name: {{ index . 2 }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "opensearch-access.labels" . | nindent 2 }}
{{- end }}

{{- define "opensearch-access.image" -}}
{{- $digest := required "image.digest is not set: give the image's sha256:... digest" .Values.image.digest -}}
{{- $repository := required "image.repository is not set: give the image's name without a tag" .Values.image.repository -}}
{{ $repository }}@{{ $digest }}
{{- end }}

{{- define "opensearch-access.env.controller" -}}
{{- with .Values.aws.region }}
- {name: AWS_REGION, value: {{ . }}}
{{- end }}
{{- with .Values.cluster }}
{{- with .eksName }}
- {name: EKS_CLUSTER_NAME, value: {{ . | quote }}}
{{- end }}
{{- with .eksRegion }}
- {name: EKS_REGION, value: {{ . | quote }}}
{{- end }}
{{- with .oidcIssuer }}
- {name: OIDC_ISSUER, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "opensearch-access.env.webhook" -}}
- {name: WEBHOOK_ADDRESS, value: "{{ .Values.listenAddress }}:8443"}
- {name: WEBHOOK_CONFIGURATION, value: opensearch-access}
- {name: WEBHOOK_SERVICE, value: opensearch-access-webhook}
{{- if .Values.certManager.enabled }}
- {name: WEBHOOK_CERTIFICATE_FOLDER, value: /run/opensearch-access/certificate}
{{- else }}
- {name: WEBHOOK_CERTIFICATE_SECRET, value: opensearch-access-webhook-certificate}
{{- end }}
{{- if .Values.webhook.clientCaSecret }}
- {name: WEBHOOK_CLIENT_CA, value: /run/opensearch-access/client-ca/ca.crt}
{{- end }}
- {name: PROXY_IMAGE, value: {{ .Values.sidecar.image | default (include "opensearch-access.image" .) | quote }}}
{{- end }}

{{- define "opensearch-access.volumes.webhook" -}}
{{- if .Values.certManager.enabled }}
- name: certificate
  secret: {secretName: opensearch-access-webhook-tls}
{{- end }}
{{- with .Values.webhook.clientCaSecret }}
- name: client-ca
  secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end }}

{{- define "opensearch-access.mounts.webhook" -}}
{{- if .Values.certManager.enabled }}
- {name: certificate, mountPath: /run/opensearch-access/certificate, readOnly: true}
{{- end }}
{{- if .Values.webhook.clientCaSecret }}
- {name: client-ca, mountPath: /run/opensearch-access/client-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "opensearch-access.args.webhook" -}}
{{- range $name, $value := .Values.sidecar.environment }}
- {{ printf "--proxy-env=%s=%s" $name $value | quote }}
{{- end }}
{{- range .Values.sidecar.arguments }}
- {{ printf "--proxy-argument=%s" . | quote }}
{{- end }}
{{- end }}

{{- /* Nothing more of the controller's own: its volumes and arguments are the admin's. */ -}}
{{- define "opensearch-access.volumes.controller" }}{{ end }}
{{- define "opensearch-access.mounts.controller" }}{{ end }}
{{- define "opensearch-access.args.controller" }}{{ end }}

{{- /* With cert-manager, where the CA bundles come from. */ -}}
{{- define "opensearch-access.inject-ca" -}}
{{- if .Values.certManager.enabled }}
annotations:
  cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/opensearch-access-webhook
{{- end }}
{{- end }}
