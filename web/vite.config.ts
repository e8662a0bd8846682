import { fileURLToPath } from 'node:url';
import { defineConfig, type Plugin } from 'vite';

const page = (name: string): string => fileURLToPath(new URL(`${name}.html`, import.meta.url));

// Every browser that runs this page reads WOFF2; the other forms of KaTeX's fonts stay out.
function modernFonts(): Plugin {
  return {
    name: 'modern-fonts',
    enforce: 'pre',
    transform(code, id) {
      if (!id.endsWith('katex.css')) return null;
      return code.replace(/,\s*url\([^)]*\)\s*format\(["'](?:woff|truetype)["']\)/g, '');
    },
  };
}

// Two pages, no inline script or style, so that the server's Content-Security-Policy holds.
export default defineConfig({
  plugins: [modernFonts()],
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 700,
    rollupOptions: {
      input: {
        index: page('index'),
        runs: page('runs'),
      },
    },
  },
  server: {
    proxy: Object.fromEntries(
      ['/v1', '/health', '/ready', '/version', '/tokenize', '/runs/data'].map((path) => [
        path,
        { target: process.env['QUERN_SERVER'] ?? 'http://127.0.0.1:8080', changeOrigin: true },
      ]),
    ),
  },
});
