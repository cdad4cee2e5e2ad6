#!/usr/bin/env bash
# Builds the container image without docker and without a registry, and checks
# its promises. Needs go, jq, and Debian's buildah and ca-certificates.
#
#   build.sh [IMAGE]     also keeps the image under that name (default: keeps none)
#
# The binary is built here; the image is the last stage of the Dockerfile.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
image=${1:-}
version=${VERSION:-v0.0.0-dev}
revision=${REVISION:-$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)}

for tool in go jq buildah; do
  command -v "$tool" >/dev/null || { echo "build.sh: $tool is missing: apt-get install --no-install-recommends $tool" >&2; exit 1; }
done
certificates=/etc/ssl/certs/ca-certificates.crt
[ -s "$certificates" ] || { echo "build.sh: $certificates is missing: apt-get install ca-certificates" >&2; exit 1; }

# Needs no daemon and no overlay file system, so it works inside of containers.
export BUILDAH_ISOLATION=chroot
buildah() { command buildah --storage-driver vfs "$@"; }

work=$(mktemp -d)
kept=() container=
cleanup() {
  [ -z "$container" ] || buildah rm "$container" >/dev/null
  for id in "${kept[@]}"; do buildah rmi "$id" >/dev/null 2>&1 || true; done
  rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "build.sh: $*" >&2; exit 1; }

# build SOURCE OUT: the binary as the Dockerfile builds it.
build() {
  CGO_ENABLED=0 GOFLAGS='' go -C "$1" build -trimpath -buildvcs=false \
    -ldflags "-s -w -buildid= -X main.buildVersion=$version -X main.buildCommit=$revision" -o "$2" ./cmd/backupd
}

echo "== the binary, from two folders"
mkdir -p "$work/elsewhere/a/b" "$work/out/usr/bin"
cp -R "$root"/{go.mod,go.sum,cmd,internal} "$work/elsewhere/a/b"
build "$root" "$work/out/usr/bin/backupd"
build "$work/elsewhere/a/b" "$work/again"
sum=$(sha256sum <"$work/out/usr/bin/backupd")
[ "$sum" = "$(sha256sum <"$work/again")" ] || fail "two builds of the same sources differ"
echo "sha256 ${sum%% *} twice, $(stat -c %s "$work/again") bytes"

echo "== the image, twice"
mkdir -p "$work/out"/{etc/ssl/certs,tmp,var/lib/backupd/spool}
cp "$certificates" "$work/out/etc/ssl/certs/"
chmod 1777 "$work/out/tmp"
chmod 755 "$work/out/usr/bin/backupd"
[ "$(id -u)" != 0 ] || chown -R 65532:65532 "$work/out/var/lib/backupd"
mkdir "$work/stage"
mv "$work/out" "$work/stage/out"
sed -n '/^FROM scratch/,$p' "$root/deploy/container/Dockerfile" >"$work/Dockerfile"
for n in 1 2; do
  buildah bud --quiet --timestamp 0 --build-context "build=$work/stage" --iidfile "$work/id$n" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" -f "$work/Dockerfile" "$work/stage"
  kept+=("$(cat "$work/id$n")")
done >/dev/null
id=$(cat "$work/id1")
[ "$id" = "$(cat "$work/id2")" ] || fail "two images of the same files differ"
echo "image $id twice"

echo "== what is in it"
buildah inspect --type image "$id" >"$work/inspect.json"
want() { # want JQ-FILTER VALUE
  got=$(jq -c ".OCIv1.$1" "$work/inspect.json")
  [ "$got" = "$2" ] || fail "$1 is $got, want $2"
  echo "$1 = $got"
}
want config.User '"65532:65532"'
want config.Entrypoint '["/usr/bin/backupd"]'
want 'config.Labels["org.opencontainers.image.version"]' "\"$version\""
want 'config.Labels["org.opencontainers.image.revision"]' "\"$revision\""
want 'rootfs.diff_ids|length' 1

container=$(buildah from "$id")
mounted=$(buildah mount "$container")
(cd "$mounted" && find . -type f -o -type l) | sort >"$work/files"
printf './etc/ssl/certs/ca-certificates.crt\n./usr/bin/backupd\n' | diff - "$work/files" || fail "other files than these are in the image"
cat "$work/files"
[ "$sum" = "$(sha256sum <"$mounted/usr/bin/backupd")" ] || fail "the image holds another binary"

echo "== it runs"
# buildah run ignores the entrypoint: give the whole command.
buildah run "$container" -- /usr/bin/backupd version | tee "$work/version"
grep -qF "backupd $version" "$work/version" || fail "the binary prints another version"
if [ "$(id -u)" = 0 ]; then
  [ "$(stat -c %u "$mounted/var/lib/backupd/spool")" = 65532 ] || fail "the spool folder is not of the user of the image"
fi
if buildah run "$container" -- /bin/sh -c true 2>/dev/null; then fail "there is a shell in the image"; fi

if [ -n "$image" ]; then
  buildah tag "$id" "$image"
  kept=()
  echo "kept as $image"
fi
echo "== done"
