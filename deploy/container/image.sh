# How a binary and an image are built: for build.sh, and for releases. Sourced.

# buildah needs no daemon and no overlay file system, so it works inside of containers.
export BUILDAH_ISOLATION=chroot
buildah() { command buildah --storage-driver vfs "$@"; }

certificates=/etc/ssl/certs/ca-certificates.crt

# need TOOL...: stops where one is missing.
need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install --no-install-recommends $tool" >&2; return 1; }
  done
  [ -s "$certificates" ] || { echo "$certificates is missing: apt-get install ca-certificates" >&2; return 1; }
}

# binary SOURCE OUT VERSION REVISION [ARCH]: the binary as the Dockerfile builds it.
binary() {
  CGO_ENABLED=0 GOFLAGS='' GOOS=linux GOARCH=${5:-$(go env GOHOSTARCH)} go -C "$1" build -trimpath -buildvcs=false \
    -ldflags "-s -w -buildid= -X main.buildVersion=$3 -X main.buildCommit=$4" -o "$2" ./cmd/backupd
}

# image SOURCE BINARY VERSION REVISION SCRATCH [ARCH]: prints the id of the image, which is
# the last stage of the Dockerfile around that binary.
image() {
  local stage=$5/stage
  mkdir -p "$stage/out/usr/bin" "$stage/out/etc/ssl/certs" "$stage/out/tmp" "$stage/out/var/lib/backupd/spool"
  cp "$2" "$stage/out/usr/bin/backupd"
  cp "$certificates" "$stage/out/etc/ssl/certs/"
  chmod 1777 "$stage/out/tmp"
  chmod 755 "$stage/out/usr/bin/backupd"
  [ "$(id -u)" != 0 ] || chown -R 65532:65532 "$stage/out/var/lib/backupd"
  sed -n '/^FROM scratch/,$p' "$1/deploy/container/Dockerfile" >"$5/Dockerfile"
  buildah bud --quiet --timestamp 0 --platform "linux/${6:-$(go env GOHOSTARCH)}" --build-context "build=$stage" \
    --iidfile "$5/id" --build-arg "VERSION=$3" --build-arg "REVISION=$4" -f "$5/Dockerfile" "$stage" >/dev/null
  cat "$5/id"
}
