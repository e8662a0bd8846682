#include "data/stages/extract.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/ascii.h"
#include "core/base64.h"
#include "core/error.h"
#include "core/json_string.h"
#include "core/utf8.h"
#include "data/extract/charset.h"
#include "data/extract/html_page.h"
#include "data/extract/mojibake.h"
#include "data/extract/page_text.h"
#include "data/extract/warc.h"
#include "formats/byte_source.h"

namespace quern {
namespace {

constexpr uint64_t kMaxFile = uint64_t{32} << 20;
// Fields by which sources hand on what the worker judges; removed from the record.
constexpr std::string_view kDamage = "quern:damage", kOffset = "quern:offset";

// "en" of "en-US", "eng" and "eng,deu".
std::string language_of(std::string_view tag) {
  static constexpr std::pair<std::string_view, std::string_view> kShort[] = {
      {"ara", "ar"}, {"ben", "bn"}, {"bul", "bg"}, {"cat", "ca"}, {"ces", "cs"}, {"dan", "da"},
      {"deu", "de"}, {"ell", "el"}, {"eng", "en"}, {"est", "et"}, {"fas", "fa"}, {"fin", "fi"},
      {"fra", "fr"}, {"heb", "he"}, {"hin", "hi"}, {"hrv", "hr"}, {"hun", "hu"}, {"ind", "id"},
      {"ita", "it"}, {"jpn", "ja"}, {"kor", "ko"}, {"lav", "lv"}, {"lit", "lt"}, {"msa", "ms"},
      {"nld", "nl"}, {"nor", "no"}, {"pol", "pl"}, {"por", "pt"}, {"ron", "ro"}, {"rus", "ru"},
      {"slk", "sk"}, {"slv", "sl"}, {"spa", "es"}, {"srp", "sr"}, {"swe", "sv"}, {"tam", "ta"},
      {"tha", "th"}, {"tur", "tr"}, {"ukr", "uk"}, {"urd", "ur"}, {"vie", "vi"}, {"zho", "zh"}};
  const std::string first = ascii_lower(tag.substr(0, tag.find_first_of("-_,; ")));
  const auto* found = std::ranges::find(kShort, std::string_view(first),
                                        &std::pair<std::string_view, std::string_view>::first);
  return found == std::end(kShort) ? first : std::string(found->second);
}

// Line ends as LF.
std::string with_line_feeds(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      out += text[i];
    } else if (i + 1 == text.size() || text[i + 1] != '\n') {
      out += '\n';
    }
  }
  return out;
}

std::string bytes_of(const fs::path& path) {
  const auto source = ByteSource::open(path);
  std::string out;
  std::vector<char> buffer(1 << 16);
  while (const size_t count = source->read(buffer)) {
    out.append(buffer.data(), count);
    if (out.size() > kMaxFile) throw_bad_input(path.string() + ": is longer than 32 MB");
  }
  return out;
}

std::string field(std::string_view name, std::string_view value) {
  return fmt::format("\"{}\": {}", name, json_string(value));
}

std::string damage_line(int64_t offset, std::string_view what) {
  return fmt::format("{{{}, \"{}\": {}}}", field(kDamage, what), kOffset, offset);
}

// A whole file as one record.
class FileSource final : public RecordSource {
 public:
  FileSource(const fs::path& path, bool html) : path_(path), html_(html) {}
  bool next(std::string& line) override {
    if (done_) return false;
    done_ = true;
    const std::string bytes = bytes_of(path_);
    line = fmt::format("{{{}, {}", field("id", path_.filename().string()),
                       field("source", path_.string()));
    line += fmt::format(", {}, {}}}", field("content_type", html_ ? "text/html" : "text/plain"),
                        field("html_base64", base64_encode(bytes)));
    return true;
  }
  uint64_t consumed_bytes() const override { return done_ ? fs::file_size(path_) : 0; }

 private:
  fs::path path_;
  bool html_, done_ = false;
};

// The pages and texts of a web archive; requests, pictures, redirects are no documents.
class WarcSource final : public RecordSource {
 public:
  explicit WarcSource(const fs::path& path) : reader_(path), name_(path.string()) {}

  bool next(std::string& line) override {
    while (auto record = reader_.next()) {
      if (!record->damage.empty()) {
        line = damage_line(record->offset, record->damage);
        return true;
      }
      try {
        if (document(*record, line)) return true;
      } catch (const Error& error) {
        if (error.kind() != Kind::BadInput) throw;
        line = damage_line(record->offset, error.what());
        return true;
      }
    }
    return false;
  }
  uint64_t consumed_bytes() const override { return reader_.consumed_bytes(); }

 private:
  bool document(const WarcRecord& record, std::string& line) const {
    const std::string type = ascii_lower(record.field("warc-type"));
    std::string uri(record.field("warc-target-uri"));
    if (uri.starts_with("<") && uri.ends_with(">")) uri = uri.substr(1, uri.size() - 2);
    if (!utf8::is_valid(uri)) throw_bad_input("WARC-Target-URI is not UTF-8");
    std::string start = fmt::format("{{{}, {}, {}", field("id", text_of(record, "warc-record-id")),
                                    field("url", uri), field("source", name_));
    const std::string date = text_of(record, "warc-date");
    if (!date.empty()) start += ", " + field("crawl_date", date);
    if (type == "conversion") {
      if (!utf8::is_valid(record.block)) throw_bad_input("its text is not UTF-8");
      const std::string language = text_of(record, "warc-identified-content-language");
      if (!language.empty()) start += ", " + field("lang", language_of(language));
      line = start + ", " + field("text", record.block) + "}";
      return true;
    }
    std::string content_type = text_of(record, "content-type"), body;
    if (type == "response" && ascii_lower(content_type).starts_with("application/http")) {
      HttpResponse response = read_http_response(record.block);
      if (response.status != 200) return false;
      content_type = std::move(response.content_type);
      body = std::move(response.body);
    } else if (type == "resource") {
      body = record.block;
    } else {
      return false;
    }
    const std::string kind = ascii_lower(content_type.substr(0, content_type.find(';')));
    const bool html = kind.find("html") != std::string::npos;
    const bool robots = uri.ends_with("/robots.txt");
    if (body.empty() || (!html && (!kind.starts_with("text/plain") || robots))) return false;
    if (!utf8::is_valid(content_type)) content_type = html ? "text/html" : "text/plain";
    line = start + ", " + field("content_type", content_type) + ", " +
           field("html_base64", base64_encode(body)) + "}";
    return true;
  }

  static std::string text_of(const WarcRecord& record, std::string_view name) {
    const std::string_view value = record.field(name);
    return utf8::is_valid(value) ? std::string(value) : std::string();
  }

  WarcReader reader_;
  std::string name_;
};

class ExtractWorker final : public StageWorker {
 public:
  ExtractWorker(const std::string& html_field, bool repair)
      : html_field_(html_field), repair_(repair) {}

  Verdict process(Record& record, const Place& place) override {
    Verdict verdict = read(record, place);
    if (!repair_ || !verdict.keep) return verdict;
    std::string repaired = repair_text(record.text());
    if (repaired == record.text()) return verdict;
    record.set_text(std::move(repaired));
    record.set_raw("repaired", "true");
    return verdict;
  }

 private:
  Verdict read(Record& record, const Place&) {
    if (const auto damage = record.string(kDamage)) {
      throw BadRecord(static_cast<int64_t>(record.number(kOffset).value_or(0)), *damage);
    }
    std::string name = html_field_;
    if (name.empty()) {
      name = !record.raw("html").empty()          ? "html"
             : !record.raw("html_base64").empty() ? "html_base64"
                                                  : "text";
    }
    auto value = record.string(name);
    if (!value) {
      throw_bad_input(html_field_.empty() ? "has none of the fields html, html_base64, text"
                                          : "has no text in the field '" + name + "'");
    }
    if (name == "text" && html_field_.empty()) {
      set_text(record, with_line_feeds(*value));
      return {};  // a text that others made, empty ones too
    }
    const std::string content_type = record.string("content_type").value_or("");
    bool html = true;
    if (name.ends_with("_base64")) {
      std::string bytes;
      if (!base64_decode(*value, bytes)) throw_bad_input("holds no base64 in '" + name + "'");
      html = !ascii_lower(content_type).starts_with("text/plain");
      DecodedText decoded = decode_text(bytes, content_type, html);
      value = std::move(decoded.utf8);
      record.set("charset", decoded.charset);
    }
    record.remove(name);
    record.remove("content_type");
    if (!html) {
      set_text(record, with_line_feeds(*value));
    } else {
      page(record, *value);
    }
    if (record.text().find_first_not_of(" \t\n") == std::string_view::npos) {
      return {.keep = false, .rule = "extract.no_text", .value = 0, .threshold = 1};
    }
    return {};
  }

  static void set_text(Record& record, std::string text) { record.set_text(std::move(text)); }

  static void page(Record& record, std::string_view html) {
    PageText found = extract_page(HtmlPage(html));
    set_text(record, std::move(found.text));
    const auto state = [&](std::string_view key, const std::string& value) {
      if (!value.empty() && record.raw(key).empty() && utf8::is_valid(value))
        record.set(key, value);
    };
    state("title", found.title);
    state("date", found.date);
    state("url", found.url);
    state("declared_lang", found.language);
    state("lang", language_of(found.language));
  }

  const std::string& html_field_;
  bool repair_;
};

class ExtractStage final : public Stage {
 public:
  ExtractStage(std::string html_field, bool repair)
      : html_field_(std::move(html_field)), repair_(repair) {}
  int version() const override { return 2; }
  std::string_view name() const override { return "extract"; }
  nlohmann::ordered_json settings() const override {
    return {{"html_field", html_field_}, {"repair", repair_}};
  }
  std::string text_field() const override { return ""; }
  std::unique_ptr<StageWorker> worker() const override {
    return std::make_unique<ExtractWorker>(html_field_, repair_);
  }
  std::unique_ptr<RecordSource> open(const fs::path& path) const override {
    std::string name = ascii_lower(path.filename().string());
    if (name.ends_with(".gz") || name.ends_with(".zst")) name.resize(name.rfind('.'));
    const auto ends = [&](std::initializer_list<std::string_view> endings) {
      return std::ranges::any_of(endings,
                                 [&](std::string_view end) { return name.ends_with(end); });
    };
    if (ends({".warc", ".wet", ".wat"})) return std::make_unique<WarcSource>(path);
    if (ends({".html", ".htm", ".xhtml"})) return std::make_unique<FileSource>(path, true);
    if (ends({".txt", ".md", ".markdown"})) return std::make_unique<FileSource>(path, false);
    return nullptr;
  }

 private:
  std::string html_field_;
  bool repair_;
};

}  // namespace

std::unique_ptr<Stage> make_extract_stage(StageSettings& settings, const std::string& html_field) {
  const bool repair = settings.flag("repair", true);
  settings.finish();
  return std::make_unique<ExtractStage>(html_field, repair);
}

}  // namespace quern
