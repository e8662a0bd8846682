#!/bin/sh
# tests/run.sh PROGRAM MODEL: the browser tests, in the folder where the pages were built. Ends with
# 77, which ctest shows as skipped, where the pages or Chromium are not there.
cd "$(dirname "$0")/.." || exit 1
if [ ! -f dist/index.html ]; then
  echo "skipped: the web pages are not built"
  exit 77
fi
for QUERN_CHROMIUM in "$QUERN_CHROMIUM" /usr/bin/chromium /usr/bin/chromium-browser ""; do
  [ -x "$QUERN_CHROMIUM" ] && break
done
if [ -z "$QUERN_CHROMIUM" ]; then
  echo "skipped: Chromium is not installed; scripts/install-deps installs it"
  exit 77
fi
export QUERN_CHROMIUM
QUERN_PROGRAM=$1 QUERN_MODEL=$2 exec node node_modules/@playwright/test/cli.js test
