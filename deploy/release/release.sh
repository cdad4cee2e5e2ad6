#!/usr/bin/env bash
# Cuts and builds releases. It publishes nothing.
#
#   release.sh cut VERSION     writes the version and the section of the changelog; commit and tag that
#   release.sh build FOLDER    builds all files of the release that is tagged at HEAD into a new folder, twice,
#                              and stops if one byte differs
#   release.sh notes           prints the section of the changelog for the tag at HEAD
#
# Needs go and git; build also jq, and Debian's buildah and ca-certificates, and root: the
# folder of the spool in the images is of their user.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
fail() { echo "release.sh: $*" >&2; exit 1; }
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 64; }

# What names the version beside the tag.
named=(deploy/charts/backupd/Chart.yaml deploy/compose/compose.yaml deploy/kustomize/overlays/{cronjob,daemon,kubeadm,sidecar,sidecar-restore}/*.yaml
  docs/deploy/{container,kubernetes,release}.md)

present() { sed -n 's/^appVersion: //p' deploy/charts/backupd/Chart.yaml; }

# section VERSION FILE: what a changelog says of it.
section() { awk -v head="## $1 " 'index($0, "## ") == 1 { found = index($0, head) == 1; next } found' "$2"; }

cut() {
  local version=$1 before
  [[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "version $version: want one like v1.2.3"
  [ -z "$(section "$version" CHANGELOG.md)" ] || fail "CHANGELOG.md has a section for $version already"
  compgen -G 'changelog/unreleased/*.md' >/dev/null || fail "changelog/unreleased is empty: there is nothing to release"
  before=$(present)
  sed -i "s/${before//./\\.}\>/$version/g; s/^version: ${before#v}\$/version: ${version#v}/" "${named[@]}"
  awk -v version="$version" -v day="$(date -u +%F)" -f deploy/release/changelog.awk \
    CHANGELOG.md changelog/unreleased/*.md >CHANGELOG.new
  mv CHANGELOG.new CHANGELOG.md
  rm changelog/unreleased/*.md
  echo "Written. Read it (git diff), and then:"
  echo "  git add -A && git commit -m 'release $version' && git tag -a $version -m $version"
}

# tagged: the version of HEAD, if all that names a version agrees.
tagged() {
  local version
  version=$(git describe --exact-match --tags --match 'v[0-9]*' HEAD 2>/dev/null) || fail "HEAD has no tag of a version: git tag v1.2.3"
  [ "$(present)" = "$version" ] || fail "the tag is $version, and deploy/charts/backupd says $(present): release.sh cut $version"
  [ -n "$(section "$version" CHANGELOG.md)" ] || fail "CHANGELOG.md has no section for $version: release.sh cut $version"
  echo "$version"
}

build() {
  local out=$1 version revision n
  version=$(tagged)
  revision=$(git rev-parse HEAD)
  [ ! -e "$out" ] || [ -z "$(ls -A "$out")" ] || fail "$out is not empty"
  . deploy/container/image.sh
  need go jq buildah || exit 1
  [ "$(id -u)" = 0 ] || fail "build needs root, for the images"
  # The same everywhere: the compiler, the times, and the modes of files.
  GOTOOLCHAIN=go$(sed -n 's/^FROM .*golang:\([0-9.]*\)-.*/\1/p' deploy/container/Dockerfile)
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
  export GOTOOLCHAIN SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
  umask 022
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  for n in once/and once/more/from/elsewhere; do
    echo "== $version, in $n"
    mkdir -p "$work/$n/src"
    git archive HEAD | tar -x --no-same-permissions --no-same-owner -C "$work/$n/src"
    files "$work/$n" "$version" "$revision"
  done
  diff -r "$work/once/and/files" "$work/once/more/from/elsewhere/files" || fail "two builds of the same sources differ"
  mkdir -p "$out"
  mv "$work"/once/and/files/* "$out"
  echo "== done: $out, the same bytes twice"
  ls -l "$out"
}

# files FOLDER VERSION REVISION: everything that a release consists of, made of FOLDER/src.
files() {
  local folder=$1 version=$2 revision=$3 arch name
  mkdir "$folder/files"
  for arch in amd64 arm64; do
    name=backupd_${version}_linux_$arch
    mkdir -p "$folder/$arch/program" "$folder/$arch/image"
    binary "$folder/src" "$folder/$arch/program/backupd" "$version" "$revision" "$arch"
    cp "$folder/src"/{LICENSE,README.md,CHANGELOG.md} "$folder/$arch/program"
    archive "$folder/$arch/program" | gzip -n -9 >"$folder/files/$name.tar.gz"
    packages "$folder" "$version" "$arch"
    # What is really in the binary, by its own record, and not the hash of the tool, which is another
    # one on each machine.
    go -C "$folder/src/tools/release" tool cyclonedx-gomod bin -json -noserial -notimestamp -std -version "$version" \
      "$folder/$arch/program/backupd" 2>"$folder/sbom.log" | jq 'del(.metadata.tools[].hashes)' \
      >"$folder/files/$name.cdx.json" || { cat "$folder/sbom.log" >&2; return 1; }
    oci "$folder" "$version" "$revision" "$arch" "$folder/files/$name.oci.tar"
  done
  (cd "$folder/files" && sha256sum -- * >SHA256SUMS)
}

# archive FOLDER: its files as a tar that depends on nothing but their names and content.
archive() {
  (cd "$1" && tar -c --sort=name --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX -- *)
}

# packages FOLDER VERSION ARCH: deb and rpm. The paths in the file are relative to the sources.
packages() {
  local folder=$1 kind nfpm
  nfpm=$(go -C "$folder/src/tools/release" tool -n nfpm)
  for kind in deb rpm; do
    (cd "$folder/src" && VERSION=$2 ARCH=$3 BINARY=$folder/$3/program/backupd \
      "$nfpm" package -f deploy/release/nfpm.yaml -p "$kind" -t "$folder/files/" >/dev/null)
  done
}

# oci FOLDER VERSION REVISION ARCH FILE: the image as an archive that docker, podman, ctr and kind load.
oci() {
  local folder=$1 version=$2 id layout=$1/$4/oci name=ghcr.io/etcd-backupd/backupd:$2
  id=$(image "$folder/src" "$folder/$4/program/backupd" "$version" "$3" "$folder/$4/image" "$4")
  buildah push --quiet "$id" "oci:$layout:$name"
  buildah rmi "$id" >/dev/null
  # containerd asks for the name under a key of its own.
  jq -cS --arg name "$name" '.manifests[].annotations["io.containerd.image.name"] = $name' \
    "$layout/index.json" >"$layout/index.new"
  mv "$layout/index.new" "$layout/index.json"
  archive "$layout" >"$5"
}

case ${1-}/$# in
cut/2) cut "$2" ;;
build/2) build "$2" ;;
notes/1) version=$(tagged) && section "$version" CHANGELOG.md ;;
*) usage ;;
esac
