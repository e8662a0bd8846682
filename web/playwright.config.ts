import { defineConfig } from '@playwright/test';

// Debian's Chromium. As root, which CI is, it has no sandbox of its own: the pages are ours.
export default defineConfig({
  testDir: 'tests',
  outputDir: 'test-results',
  globalSetup: './tests/servers.ts',
  workers: 2,
  fullyParallel: true,
  timeout: 60_000,
  // On a machine that does much else a page may miss its time; the list names such a test as flaky.
  retries: 2,
  expect: { timeout: 20_000 },
  reporter: [['list']],
  use: {
    browserName: 'chromium',
    viewport: { width: 1280, height: 800 },
    locale: 'en-GB',
    permissions: ['clipboard-read', 'clipboard-write'],
    launchOptions: {
      executablePath: process.env['QUERN_CHROMIUM'] ?? '/usr/bin/chromium',
      args: ['--no-sandbox'],
    },
  },
});
