#!/usr/bin/env bash
# Cuts and builds a release of a version that never was, in a clone of the last commit, and looks at
# everything in it. Needs what release.sh needs, and Debian's rpm and systemd.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
version=v9.8.7
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "test.sh: $*" >&2; exit 1; }
step() { echo "== $*"; }
refused() { # refused WORDS COMMAND...: it fails and says so
  local words=$1 out
  shift
  if out=$("$@" 2>&1); then fail "$*: no error"; fi
  case $out in *"$words"*) ;; *) fail "$*: $out" ;; esac
}

clone() {
  git clone -q "$root" "$work/clone"
  cd "$work/clone"
  git config user.name test
  git config user.email test@example.com
}

step "cut"
clone
fragments=$(cat changelog/unreleased/*.md)
count=$(grep -cE '^(New|Changed|Fixed|Fix|Removed|Security): ' changelog/unreleased/*.md | awk -F: '{ n += $2 } END { print n }')
refused "HEAD has no tag" deploy/release/release.sh build "$work/files"
git tag v9.9.9
refused "the tag is v9.9.9" deploy/release/release.sh build "$work/files"
refused "want one like v1.2.3" deploy/release/release.sh cut 1.2
deploy/release/release.sh cut $version
git add -A
git commit -q -m "release $version"
git tag $version
refused "has a section for $version" deploy/release/release.sh cut $version
! ls changelog/unreleased/*.md 2>/dev/null || fail "fragments are left"
deploy/release/release.sh notes >"$work/notes"
[ "$(grep -c '^- ' "$work/notes")" = "$count" ] || fail "the section has $(grep -c '^- ' "$work/notes") entries, there were $count"
# Every word of every fragment is in it.
words() { tr -cs '[:alnum:]' '\n' | sed '/^$/d' | tr '[:upper:]' '[:lower:]' | grep -vxE 'new|changed|fixed|fix|removed|security' | sort; }
diff <(words <<<"$fragments") <(words <"$work/notes") >/dev/null || fail "the section has other words than the fragments"
! git grep -nE 'backupd:v0\.' -- deploy docs || fail "an older version is named"

step "build"
# What lies beside the commit is no part of a release.
echo 'package main; func init() { panic("not committed") }' >cmd/backupd/stray.go
deploy/release/release.sh build "$work/files"
refused "is not empty" deploy/release/release.sh build "$work/files"

step "what there is"
cd "$work/files"
for arch in amd64 arm64; do printf 'backupd_%s_linux_%s.%s\n' $version $arch tar.gz $version $arch cdx.json $version $arch oci.tar; done >"$work/want"
printf '%s\n' backupd_9.8.7-1_{amd64,arm64}.deb backupd-9.8.7-1.{x86_64,aarch64}.rpm SHA256SUMS >>"$work/want"
diff <(sort "$work/want") <(printf '%s\n' * | sort) || fail "other files than these"
sha256sum --check --strict --quiet SHA256SUMS
[ "$(wc -l <SHA256SUMS)" = 10 ] || fail "SHA256SUMS names other files than there are"

step "the program"
mkdir "$work/tar"
tar -xzf backupd_${version}_linux_amd64.tar.gz -C "$work/tar"
"$work/tar/backupd" version | tee "$work/version"
grep -qxF "backupd $version" "$work/version" || fail "it says another version"
grep -q "$(git -C "$work/clone" rev-parse HEAD)" "$work/version" || fail "it says another commit"

step "packages"
rpm_at() { # rpm_at FOLDER ARGUMENT...: rpm with that folder as the host
  mkdir -p "$1"
  rpm --root "$1" --dbpath /var/lib/rpm --force-debian "${@:2}"
}
units="backupd.service backupd-once.service backupd-once.timer"
for arch in amd64 arm64; do
  deb=$work/deb-$arch rpm=$work/rpm-$arch
  machine=x86_64
  [ $arch = amd64 ] || machine=aarch64
  dpkg-deb -x backupd_9.8.7-1_$arch.deb "$deb"
  rpm_at "$rpm" --upgrade --ignorearch --noscripts backupd-9.8.7-1.$machine.rpm
  [ "$(dpkg-deb -f backupd_9.8.7-1_$arch.deb Version Architecture | xargs)" = "Version: 9.8.7-1 Architecture: $arch" ] || fail "deb: $(dpkg-deb -f backupd_9.8.7-1_$arch.deb)"
  [ "$(rpm_at "$rpm" --query --qf '%{VERSION} %{ARCH} %{BUILDHOST}' backupd)" = "9.8.7 $machine localhost" ] || fail "rpm"
  go version -m "$deb/usr/bin/backupd" | grep -qE "GOARCH=$arch$" || fail "deb: not of $arch"
  mkdir "$work/tar-$arch"
  tar -xzf backupd_${version}_linux_$arch.tar.gz -C "$work/tar-$arch"
  for folder in "$deb" "$rpm"; do
    cmp "$folder/usr/bin/backupd" "$work/tar-$arch/backupd" || fail "$folder: another program"
    for unit in $units; do cmp "$folder/usr/lib/systemd/system/$unit" "$work/clone/deploy/systemd/$unit"; done
    [ "$(stat -c %a "$folder"/{usr/bin/backupd,etc/backupd,etc/backupd/etcd,etc/backupd/backupd.yaml,etc/backupd/backupd.env} | xargs)" = \
      "755 755 700 644 600" ] || fail "$folder: modes"
  done
  dpkg-deb --ctrl-tarfile backupd_9.8.7-1_$arch.deb | tar -xO ./conffiles | sort | xargs | grep -qx "/etc/backupd/backupd.env /etc/backupd/backupd.yaml" ||
    fail "deb: an update would replace the configuration"
  rpm_at "$rpm" --query --configfiles backupd | sort | xargs | grep -qx "/etc/backupd/backupd.env /etc/backupd/backupd.yaml" || fail "rpm: configuration"
  rpm_at "$rpm" --query --scripts backupd | grep -q "systemctl disable --now" || fail "rpm: no script"
done
for unit in $units; do sed -i "s#=/usr/bin/backupd#=$work/deb-amd64/usr/bin/backupd#" "$work/deb-amd64/usr/lib/systemd/system/$unit"; done
out=$(systemd-analyze verify --man=no $(printf "$work/deb-amd64/usr/lib/systemd/system/%s " $units) 2>&1) && [ -z "$out" ] || fail "units: $out"

step "installed, updated, removed"
host=$work/host
dpkg_at() {
  dpkg --root="$host" --force-not-root --force-script-chrootless --force-depends --log=/dev/null "$@" backupd_9.8.7-1_amd64.deb >/dev/null
}
mkdir -p "$host/var/lib/dpkg/"{info,updates}
touch "$host/var/lib/dpkg/"{status,available}
dpkg_at --install
"$host/usr/bin/backupd" version >/dev/null
echo mine >"$host/etc/backupd/backupd.yaml"
dpkg_at --install
[ "$(cat "$host/etc/backupd/backupd.yaml")" = mine ] || fail "the update replaced the configuration"
dpkg --root="$host" --force-script-chrootless --log=/dev/null --remove backupd >/dev/null
[ ! -e "$host/usr/bin/backupd" ] || fail "deb: it is there still"
host=$work/rpm-amd64
echo mine >"$host/etc/backupd/backupd.yaml"
rpm_at "$host" --upgrade --replacepkgs --noscripts backupd-9.8.7-1.x86_64.rpm
[ "$(cat "$host/etc/backupd/backupd.yaml")" = mine ] || fail "rpm: the update replaced the configuration"
rpm_at "$host" --erase --noscripts backupd
[ ! -e "$host/usr/bin/backupd" ] || fail "rpm: it is there still"

step "SBOM"
for arch in amd64 arm64; do
  go version -m "$work/tar-$arch/backupd" | awk '$1 == "dep" { print $2 "@" $3 }' | sort >"$work/deps"
  jq -r '.components[] | select(.name != "std") | .name + "@" + .version' backupd_${version}_linux_$arch.cdx.json | sort >"$work/sbom"
  diff "$work/deps" "$work/sbom" || fail "the SBOM names other modules than the program"
  jq -e --arg version $version '.bomFormat == "CycloneDX" and .metadata.component.version == $version' \
    backupd_${version}_linux_$arch.cdx.json >/dev/null || fail "SBOM: $(jq .metadata backupd_${version}_linux_$arch.cdx.json)"
done

step "images"
. "$work/clone/deploy/container/image.sh"
for arch in amd64 arm64; do
  id=$(buildah pull --quiet "oci-archive:backupd_${version}_linux_$arch.oci.tar")
  [ "$(buildah inspect --type image "$id" | jq -r '.OCIv1.architecture + " " + .OCIv1.config.Labels["org.opencontainers.image.version"]')" = \
    "$arch $version" ] || fail "image of $arch"
  container=$(buildah from --arch $arch "$id")
  cmp "$(buildah mount "$container")/usr/bin/backupd" "$work/tar-$arch/backupd" || fail "the image of $arch holds another program"
  buildah rm "$container" >/dev/null
  tar -xOf backupd_${version}_linux_$arch.oci.tar index.json | jq -e --arg name ghcr.io/etcd-backupd/backupd:$version \
    '.manifests | length == 1 and .[0].annotations["org.opencontainers.image.ref.name"] == $name' >/dev/null || fail "the image of $arch has no name"
  buildah rmi "$id" >/dev/null
done
step "done"
