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

{{/* Of the pod of "helm test": no Service, no monitor and no controller selects it. */}}
{{- define "backupd.checkLabels" -}}
app.kubernetes.io/name: {{ include "backupd.checkName" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "backupd.checkName" -}}
{{- printf "%s-check" (include "backupd.name" . | trunc 57 | trimSuffix "-") }}
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
{{- if and .Values.spool.existingClaim (not (and (eq .Values.mode "daemon") .Values.spool.persistent)) }}
{{- fail "spool.existingClaim is only for mode daemon with spool.persistent: elsewhere the spool is on the node's disk" }}
{{- end }}
{{- if and .Values.restore.plan (ne .Values.mode "sidecar") }}
{{- fail "restore.plan is only for mode sidecar: in the other modes etcd does not run in pods that a restore could precede" }}
{{- end }}
{{- if and (eq .Values.mode "sidecar") (ne (include "backupd.companionSecrets" .) "[]") }}
{{- fail "companions.secrets without a kubeconfig is not for mode sidecar: the account of those pods is etcd's, too" }}
{{- end }}
{{- if eq (include "backupd.listen" .) "off" }}
{{- $_ := set $config.daemon "server" (dict "listen" "off") }}
{{- else if not (hasKey $config.daemon.server "allowed-hosts") }}
{{- $name := include "backupd.fullname" . }}
{{- $full := printf "%s.%s" $name .Release.Namespace }}
{{- $_ := set $config.daemon.server "allowed-hosts" (list $name $full (printf "%s.svc" $full) (printf "%s.svc.cluster.local" $full)) }}
{{- end }}
{{- /* The spool fits into its volume, for above a sizeLimit the kubelet evicts the pod. On
a node's disk, where etcd's data may lie too, more stays free than the kubelet asks for. */}}
{{- $spool := default (dict) $config.daemon.spool }}
{{- if not (hasKey $spool "max-bytes") }}
{{- $unit := dict "K" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 }}
{{- $factor := default 1 (get $unit (regexFind "[A-Z]i?$" .Values.spool.size)) }}
{{- $bytes := mulf (regexFind "^[0-9.]+" .Values.spool.size | float64) $factor 0.85 }}
{{- $_ := set $spool "max-bytes" (printf "%.0fMiB" (floor (divf $bytes 1048576))) }}
{{- end }}
{{- if not (hasKey $spool "min-free") }}
{{- $_ := set $spool "min-free" (ternary "512MiB" "20%" (and (eq .Values.mode "daemon") .Values.spool.persistent)) }}
{{- end }}
{{- $_ := set $config.daemon "spool" $spool }}
{{- toYaml $config }}
{{- end }}

{{/* Two releases may read Secrets of one namespace. */}}
{{- define "backupd.companionRole" -}}
{{- printf "%s-%s-companions" .Release.Namespace (include "backupd.fullname" .) }}
{{- end }}

{{/* The Secrets that go with snapshots and that the pods read as their account, as NAMESPACE/NAME. */}}
{{- define "backupd.companionSecrets" -}}
{{- $names := list }}
{{- range .Values.config.clusters }}
{{- $companions := default (dict) (get . "companions") }}
{{- if not (get $companions "kubeconfig") }}
{{- range default (list) (get $companions "secrets") }}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$" .) }}
{{- fail (printf "%q in companions.secrets: want NAMESPACE/NAME of a Secret" .) }}
{{- end }}
{{- $names = append $names . }}
{{- end }}
{{- end }}
{{- end }}
{{- uniq $names | sortAlpha | toJson }}
{{- end }}

{{- define "backupd.listen" -}}
{{- if eq .Values.mode "cronjob" -}}
off
{{- else -}}
{{- default "127.0.0.1:9387" (get .Values.config.daemon.server "listen") }}
{{- end }}
{{- end }}

{{/* The port of the listener; empty where nobody can reach it from outside of the pod. */}}
{{- define "backupd.port" -}}
{{- $listen := include "backupd.listen" . }}
{{- if not (regexMatch "^(off$|localhost:|127\\.|\\[::1\\]:)" $listen) }}
{{- regexFind "[0-9]+$" $listen }}
{{- end }}
{{- end }}

{{/* The TCP ports of everything that the configuration names by a URL, and networkPolicy.egressPorts. */}}
{{- define "backupd.egressPorts" -}}
{{- $urls := list }}
{{- range $_, $repository := .Values.config.repositories }}
{{- $urls = append $urls (dig "s3" "endpoint" "" $repository) }}
{{- end }}
{{- range .Values.config.clusters }}
{{- $urls = concat $urls (default (list) (get . "endpoints")) }}
{{- $urls = append $urls (default "" (get . "local-endpoint")) }}
{{- end }}
{{- range default (list) (get .Values.config.daemon "notifications") }}
{{- range $_, $receiver := . }}
{{- if kindIs "map" $receiver }}
{{- $urls = append $urls (default "" (get $receiver "url")) }}
{{- end }}
{{- end }}
{{- end }}
{{- $ports := list }}
{{- range .Values.networkPolicy.egressPorts }}
{{- $ports = append $ports (int .) }}
{{- end }}
{{- if ne (include "backupd.companionSecrets" .) "[]" }}
{{- range .Values.companions.apiServerPorts }}
{{- $ports = append $ports (int .) }}
{{- end }}
{{- end }}
{{- range $urls }}
{{- $address := regexFind "^https?://[^/?]+" . }}
{{- if $address }}
{{- $port := regexFind ":[0-9]+$" $address | trimPrefix ":" }}
{{- $ports = append $ports (default (ternary 443 80 (hasPrefix "https:" $address)) $port | int) }}
{{- end }}
{{- end }}
{{- uniq $ports | toJson }}
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
{{- with .Values.podSecurityContext.runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
{{- /* OpenShift gives each namespace a range of its own, and admits no other ids. */}}
{{- $openshift := .Capabilities.APIVersions.Has "security.openshift.io/v1" }}
{{- $group := default (ternary "" "65532" $openshift) .Values.podSecurityContext.fsGroup }}
{{- if and $group (ne .Values.mode "sidecar") }}
fsGroup: {{ int64 $group }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What the container asks for. A spool that is no claim is room on the node's disk: a
node without that is not chosen. */}}
{{- define "backupd.resources" -}}
{{- $resources := deepCopy .root.Values.resources }}
{{- $limited := hasKey (default (dict) $resources.limits) "ephemeral-storage" }}
{{- if not (or .claim $limited (eq (first .args) "check")) }}
{{- $room := dict "ephemeral-storage" .root.Values.spool.size }}
{{- $_ := set $resources "requests" (merge (default (dict) $resources.requests) $room) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* The container. Call with a dict of root (the top scope), args, and claim: whether the
spool is in one. */}}
{{- define "backupd.container" -}}
{{- $port := "" }}
{{- if eq (first .args) "run" }}
{{- $port = include "backupd.port" .root }}
{{- end }}
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
{{- with $port }}
ports:
  - {name: backupd, containerPort: {{ . }}, protocol: TCP}
# Liveness only means that the process answers: an etcd or a bucket that is down must not
# stop the daemon.
livenessProbe:
  httpGet: {path: /healthz, port: backupd, scheme: HTTPS}
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
{{- if ne $.root.Values.mode "sidecar" }}
readinessProbe:
  httpGet: {path: /readyz, port: backupd, scheme: HTTPS}
  periodSeconds: 20
  timeoutSeconds: 5
{{- end }}
{{- end }}
resources:
  {{- include "backupd.resources" $ | trim | nindent 2 }}
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
  {{- if ne (include "backupd.listen" .) "off" }}
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
  {{- if ne (include "backupd.companionSecrets" .) "[]" }}
  - {name: backupd-account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  {{- end }}
  - {name: backupd-spool, mountPath: /var/lib/backupd/spool}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The init container that restores by a plan, in pods that are not the chart's. */}}
{{- define "backupd.restore" -}}
name: restore
image: {{ include "backupd.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - restore
  - --if-empty
  - --plan=/etc/backupd/config/plan.yaml
  - --config=/etc/backupd/config/backupd.yaml
  - --name=$(POD_NAME)
  - --data-dir={{ .Values.restore.dataDir }}
  {{- with .Values.restore.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  {{- include "backupd.podSecurityContext" . | trim | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: {{ .Values.restore.volume }}, mountPath: {{ .Values.restore.mountPath }}}
  - {name: backupd-config, mountPath: /etc/backupd/config, readOnly: true}
  {{- if .Values.s3.existingSecret }}
  - {name: backupd-s3, mountPath: /etc/backupd/s3, readOnly: true}
  {{- end }}
  {{- with .Values.restore.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
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
{{- if ne (include "backupd.listen" .) "off" }}
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
{{- if ne (include "backupd.companionSecrets" .) "[]" }}
# What automountServiceAccountToken would mount, for this container alone.
- name: backupd-account
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
- name: backupd-spool
  {{- if $claim }}
  persistentVolumeClaim: {claimName: {{ default (printf "%s-spool" (include "backupd.fullname" .)) .Values.spool.existingClaim }}}
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
    - {{- include "backupd.container" (dict "root" . "args" $.args "claim" $.claim) | trim | nindent 6 }}
  volumes:
    {{- include "backupd.volumes" (dict "root" . "claim" $.claim) | trim | nindent 4 }}
{{- end }}
{{- end }}
