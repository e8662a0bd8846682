#include "serve/web_page.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "core/ascii.h"
#include "core/error.h"

// The assembler reads the file; a list of half a million numbers would take the compiler minutes.
asm(".pushsection .rodata\n"
    ".hidden quern_web_blob\n"
    ".globl quern_web_blob\n"
    "quern_web_blob:\n"
    ".incbin \"" QUERN_WEB_BLOB
    "\"\n"
    ".byte 0\n"
    ".popsection\n");
extern "C" const char quern_web_blob[];

namespace quern::serve {
namespace {

struct Row {
  std::string_view path, content_type;
  size_t offset, stored, size;
  std::string_view tag;
  bool compressed, lasting;
};

constexpr std::string_view kHtml = "text/html; charset=utf-8";
constexpr std::string_view kNotBuilt =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Quern</title>"
    "<h1>Quern serves, but without its web chat</h1>"
    "<p>This program was built where npm or its packages could not be had. The API is at "
    "<code>/v1</code>; <code>quern chat</code> talks in the terminal. To have the chat, install "
    "npm (<code>scripts/install-deps</code>) and build again.</p></html>\n";

// Written by web/pack.mjs; empty where the pages were not built. The first row keeps the list from
// being empty and is no path.
constexpr Row kRows[] = {
    {"", "", 0, 0, 0, "", false, false},
#include QUERN_WEB_TABLE
};

std::span<const WebFile> files() {
  static const std::vector<WebFile> kFiles = [] {
    std::vector<WebFile> all;
    for (const Row& row : std::span(kRows).subspan(1)) {
      all.push_back({row.path,
                     row.content_type,
                     {quern_web_blob + row.offset, row.stored},
                     row.size,
                     row.tag,
                     row.compressed,
                     row.lasting});
    }
    if (all.empty()) {
      all.push_back({"/", kHtml, kNotBuilt, kNotBuilt.size(), "not-built", false, false});
    }
    return all;
  }();
  return kFiles;
}

std::string inflated(const WebFile& file) {
  std::string out(file.size, '\0');
  z_stream stream{};
  constexpr int kGzip = 16 + MAX_WBITS;
  if (inflateInit2(&stream, kGzip) != Z_OK) throw Error(Kind::NoResources, "zlib cannot begin");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(file.bytes.data()));
  stream.avail_in = static_cast<uInt>(file.bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int status = inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  if (status != Z_STREAM_END || stream.total_out != file.size) {
    throw Error(Kind::Failed, fmt::format("the embedded {} is damaged", file.path));
  }
  return out;
}

// Nothing but what this server itself has, and no code but its scripts; text becomes elements by
// way of the sanitiser alone.
constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify";

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The items of a list in a header, as "a, b;q=0" has two.
template <class Visit>
void each_item(std::string_view list, char separator, Visit visit) {
  while (!list.empty()) {
    const size_t end = std::min(list.find(separator), list.size());
    visit(trim(list.substr(0, end)));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
}

bool same_name(std::string_view a, std::string_view b) noexcept {
  return std::ranges::equal(a, b, [](char x, char y) { return ascii_lower(x) == ascii_lower(y); });
}

}  // namespace

bool accepts_coding(std::string_view accept_encoding, std::string_view coding) noexcept {
  bool named = false, wanted = false, any = false;
  each_item(accept_encoding, ',', [&](std::string_view item) {
    const size_t semicolon = std::min(item.find(';'), item.size());
    const std::string_view name = trim(item.substr(0, semicolon));
    bool refused = false;
    each_item(item.substr(semicolon), ';', [&](std::string_view parameter) {
      if (parameter.size() < 3 || !same_name(parameter.substr(0, 2), "q=")) return;
      const std::string_view weight = parameter.substr(2);
      refused = weight.find_first_not_of("0.") == weight.npos;  // 0, 0.0, 0.00, 0.000
    });
    if (same_name(name, coding)) {
      named = true;
      wanted = !refused;
    } else if (name == "*") {
      any = !refused;
    }
  });
  return named ? wanted : any;
}

const WebFile* find_web_file(std::string_view path) noexcept {
  const auto all = files();
  const auto found = std::ranges::find(all, path, &WebFile::path);
  return found == all.end() ? nullptr : &*found;
}

HttpResponse web_response(const WebFile& file, const HttpRequest& request) {
  const bool as_stored =
      file.compressed && accepts_coding(request.header("accept-encoding"), "gzip");
  // Each form of the file has a tag of its own, or a cache between could take one for the other.
  const std::string tag = fmt::format("\"{}{}\"", file.tag, as_stored ? "-gz" : "");
  HttpResponse response;
  response.content_type = std::string(file.content_type);
  response.headers = {
      {"ETag", tag},
      {"Cache-Control", file.lasting ? "public, max-age=31536000, immutable" : "no-cache"},
      {"Vary", "Accept-Encoding"},
      {"Content-Security-Policy", std::string(kPolicy)},
      {"Referrer-Policy", "no-referrer"},
      {"Cross-Origin-Opener-Policy", "same-origin"},
      {"Cross-Origin-Resource-Policy", "same-origin"},
      {"Permissions-Policy", "camera=(), geolocation=(), microphone=()"},
  };
  bool known = false;
  each_item(request.header("if-none-match"), ',', [&](std::string_view theirs) {
    if (theirs.starts_with("W/")) theirs.remove_prefix(2);
    known = known || theirs == "*" || theirs == tag;
  });
  if (known) {
    response.status = 304;
    return response;
  }
  if (as_stored) response.headers.emplace_back("Content-Encoding", "gzip");
  response.body = file.compressed && !as_stored ? inflated(file) : std::string(file.bytes);
  return response;
}

}  // namespace quern::serve
