{{- define "backupd.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "backupd.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "backupd.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "backupd.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "backupd.selectorLabels" -}}
app.kubernetes.io/name: {{ include "backupd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "backupd.labels" -}}
{{ include "backupd.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "backupd.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "backupd.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "backupd.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* backupd.yaml */}}
{{- define "backupd.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if not $config.clusters }}
{{- fail "config.clusters is empty: name the etcd clusters to guard, and config.repositories to keep their snapshots in (see the comments in values.yaml)" }}
{{- end }}
{{- if not $config.repositories }}
{{- fail "config.repositories is empty: name at least one, such as {main: {url: s3://BUCKET/PREFIX, create-if-missing: true}}" }}
{{- end }}
{{- if eq .Values.mode "cronjob" }}
{{- $_ := set $config.daemon "server" (dict "listen" "off") }}
{{- else if not (hasKey $config.daemon.server "allowed-hosts") }}
{{- $name := include "backupd.fullname" . }}
{{- $full := printf "%s.%s" $name .Release.Namespace }}
{{- $_ := set $config.daemon.server "allowed-hosts" (list $name $full (printf "%s.svc" $full) (printf "%s.svc.cluster.local" $full)) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- define "backupd.serverName" -}}
{{- default (printf "%s.%s.svc" (include "backupd.fullname" .) .Release.Namespace) .Values.tls.serverName }}
{{- end }}

{{/* Of the pod, or of the container in a pod that is not the chart's. */}}
{{- define "backupd.podSecurityContext" -}}
{{- if eq .Values.mode "kubeadm" }}
# Only root can read kubeadm's key. Root without any capability can do no more
# with the host than read the three files mounted here.
runAsUser: 0
runAsGroup: 0
{{- else }}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
{{- if ne .Values.mode "sidecar" }}
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The container. Call with a dict of root (the top scope) and args. */}}
{{- define "backupd.container" -}}
{{- $serves := eq (first .args) "run" }}
{{- with .root }}
name: backupd
image: {{ include "backupd.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  {{- toYaml $.args | nindent 2 }}
  - --config=/etc/backupd/config/backupd.yaml
  {{- with .Values.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .Values.extraEnv (eq .Values.mode "kubeadm") }}
env:
  {{- if eq .Values.mode "kubeadm" }}
  - name: HOST_IP
    valueFrom: {fieldRef: {fieldPath: status.hostIP}}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- if $serves }}
ports:
  - {name: backupd, containerPort: 9387, protocol: TCP}
# Liveness only means that the process answers: an etcd or a bucket that is down must not
# stop the daemon.
livenessProbe:
  httpGet: {path: /healthz, port: backupd, scheme: HTTPS}
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
{{- if ne .Values.mode "sidecar" }}
readinessProbe:
  httpGet: {path: /readyz, port: backupd, scheme: HTTPS}
  periodSeconds: 20
  timeoutSeconds: 5
{{- end }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  {{- if eq .Values.mode "sidecar" }}
  {{- include "backupd.podSecurityContext" . | trim | nindent 2 }}
  {{- end }}
# "kubectl describe pod" then shows why it stopped.
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: backupd-config, mountPath: /etc/backupd/config, readOnly: true}
  {{- if ne .Values.mode "cronjob" }}
  - {name: backupd-tls, mountPath: /etc/backupd/tls, readOnly: true}
  - {name: backupd-tokens, mountPath: /etc/backupd/tokens, readOnly: true}
  {{- end }}
  {{- if .Values.s3.existingSecret }}
  - {name: backupd-s3, mountPath: /etc/backupd/s3, readOnly: true}
  {{- end }}
  {{- if .Values.notifications.existingSecret }}
  - {name: backupd-notifications, mountPath: /etc/backupd/notifications, readOnly: true}
  {{- end }}
  {{- range $cluster, $_ := .Values.etcd.existingSecrets }}
  - {name: {{ printf "backupd-etcd-%s" $cluster }}, mountPath: {{ printf "/etc/backupd/etcd/%s" $cluster }}, readOnly: true}
  {{- end }}
  {{- if eq .Values.mode "kubeadm" }}
  # Three files and not the folder, which holds the key of the CA.
  - {name: backupd-kubeadm-ca, mountPath: /etc/kubernetes/pki/etcd/ca.crt, readOnly: true}
  - {name: backupd-kubeadm-cert, mountPath: /etc/kubernetes/pki/etcd/healthcheck-client.crt, readOnly: true}
  - {name: backupd-kubeadm-key, mountPath: /etc/kubernetes/pki/etcd/healthcheck-client.key, readOnly: true}
  {{- end }}
  - {name: backupd-spool, mountPath: /var/lib/backupd/spool}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Its volumes. Call with a dict of root and claim: whether the spool is in one. */}}
{{- define "backupd.volumes" -}}
{{- $claim := .claim }}
{{- /* Beside your etcd, the group of the files is not the chart's to choose. */}}
{{- $mode := ternary "0444" "0440" (eq .root.Values.mode "sidecar") }}
{{- with .root }}
- name: backupd-config
  configMap: {name: {{ include "backupd.fullname" . }}}
{{- if ne .Values.mode "cronjob" }}
- name: backupd-tls
  secret: {secretName: {{ .Values.tls.existingSecret }}, defaultMode: {{ $mode }}}
- name: backupd-tokens
  secret: {secretName: {{ .Values.tokens.existingSecret }}, defaultMode: {{ $mode }}}
{{- end }}
{{- with .Values.s3.existingSecret }}
- name: backupd-s3
  secret: {secretName: {{ . }}, defaultMode: {{ $mode }}}
{{- end }}
{{- with .Values.notifications.existingSecret }}
- name: backupd-notifications
  secret: {secretName: {{ . }}, defaultMode: {{ $mode }}}
{{- end }}
{{- range $cluster, $secret := .Values.etcd.existingSecrets }}
- name: {{ printf "backupd-etcd-%s" $cluster }}
  secret: {secretName: {{ $secret }}, defaultMode: {{ $mode }}}
{{- end }}
{{- if eq .Values.mode "kubeadm" }}
- name: backupd-kubeadm-ca
  hostPath: {path: /etc/kubernetes/pki/etcd/ca.crt, type: File}
- name: backupd-kubeadm-cert
  hostPath: {path: /etc/kubernetes/pki/etcd/healthcheck-client.crt, type: File}
- name: backupd-kubeadm-key
  hostPath: {path: /etc/kubernetes/pki/etcd/healthcheck-client.key, type: File}
{{- end }}
- name: backupd-spool
  {{- if $claim }}
  persistentVolumeClaim: {claimName: {{ include "backupd.fullname" . }}-spool}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.spool.size }}}
  {{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{/* A pod. Call with a dict of root, args, claim, restartPolicy and labels. */}}
{{- define "backupd.pod" -}}
{{- with .root }}
metadata:
  labels:
    {{- toYaml $.labels | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: backupd
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  restartPolicy: {{ $.restartPolicy }}
  serviceAccountName: {{ include "backupd.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml .Values.nodeSelector | nindent 4 }}
  {{- else if eq .Values.mode "kubeadm" }}
  nodeSelector:
    node-role.kubernetes.io/control-plane: ""
  {{- end }}
  {{- if .Values.tolerations }}
  tolerations:
    {{- toYaml .Values.tolerations | nindent 4 }}
  {{- else if eq .Values.mode "kubeadm" }}
  tolerations:
    - {key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "backupd.podSecurityContext" . | trim | nindent 4 }}
  containers:
    - {{- include "backupd.container" (dict "root" . "args" $.args) | trim | nindent 6 }}
  volumes:
    {{- include "backupd.volumes" (dict "root" . "claim" $.claim) | trim | nindent 4 }}
{{- end }}
{{- end }}
