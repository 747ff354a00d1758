#!/bin/sh
# Makes an arm64 Debian root in the folder $1, whose programs run on this machine in an emulator.
# Needs root, debootstrap and qemu-user-static. What it downloads stays in $2 for the next time.
set -eu
root=$1 cache=$2
mkdir -p "$cache"

for tool in debootstrap qemu-aarch64-static; do
  command -v $tool > /dev/null || { apt-get update -qq; apt-get install -y -qq debootstrap qemu-user-static; }
done

# The kernel starts arm64 programs in the emulator, in a chroot too (flag F).
formats=/proc/sys/fs/binfmt_misc
test -e $formats/register || mount -t binfmt_misc binfmt_misc $formats
test -e $formats/qemu-aarch64 || update-binfmts --import qemu-aarch64 2> /dev/null || true
test -e $formats/qemu-aarch64 || printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:OCPF' > $formats/register

if ! test -e "$root/.ready"; then
  umount "$root/proc" "$root/sys" 2> /dev/null || true
  rm -rf "$root"
  debootstrap --foreign --arch=arm64 --variant=minbase --cache-dir="$cache" \
    --include=python3 bookworm "$root"
  mkdir -p "$root/usr/bin"
  cp /usr/bin/qemu-aarch64-static "$root/usr/bin/"
  chroot "$root" /debootstrap/debootstrap --second-stage
  mkdir -p "$root/work" "$root/opt"
  touch "$root/.ready"
fi

# XNNPACK's cpuinfo reads /sys; without it XNNPACK does not initialize.
for folder in proc sys; do
  mountpoint -q "$root/$folder" || mount --bind /$folder "$root/$folder"
done
