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

. "$root/deploy/container/image.sh"
need go jq buildah || exit 1

work=$(mktemp -d)
kept=() container=
cleanup() {
  [ -z "$container" ] || buildah rm "$container" >/dev/null
  for id in "${kept[@]}"; do buildah rmi "$id" >/dev/null 2>&1 || true; done
  rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "build.sh: $*" >&2; exit 1; }

echo "== the binary, from two folders"
mkdir -p "$work/elsewhere/a/b"
cp -R "$root"/{go.mod,go.sum,cmd,internal} "$work/elsewhere/a/b"
binary "$root" "$work/backupd" "$version" "$revision"
binary "$work/elsewhere/a/b" "$work/again" "$version" "$revision"
sum=$(sha256sum <"$work/backupd")
[ "$sum" = "$(sha256sum <"$work/again")" ] || fail "two builds of the same sources differ"
echo "sha256 ${sum%% *} twice, $(stat -c %s "$work/again") bytes"

echo "== the image, twice"
for n in 1 2; do
  mkdir "$work/$n"
  image "$root" "$work/backupd" "$version" "$revision" "$work/$n" >"$work/id$n"
  kept+=("$(cat "$work/id$n")")
done
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
