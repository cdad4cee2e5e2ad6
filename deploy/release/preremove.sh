#!/bin/sh
# An update (deb: upgrade, rpm: 1) leaves everything running.
set -e
case $1 in
remove | 0)
  if [ -z "${DPKG_ROOT-}" ] && [ -d /run/systemd/system ]; then
    systemctl disable --now backupd.service backupd-once.timer
  fi
  ;;
esac
