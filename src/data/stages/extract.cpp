#include "data/stages/extract.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "core/ascii.h"
#include "core/base64.h"
#include "core/error.h"
#include "core/json_string.h"
#include "core/python_text.h"
#include "core/utf8.h"
#include "data/extract/charset.h"
#include "data/extract/html_page.h"
#include "data/extract/mojibake.h"
#include "data/extract/page_text.h"
#include "data/extract/source_facts.h"
#include "data/extract/source_language.h"
#include "data/extract/warc.h"
#include "formats/byte_source.h"

namespace quern {
namespace {

constexpr uint64_t kMaxFile = uint64_t{32} << 20;
// Fields by which sources hand on what the worker judges; removed from the record.
constexpr std::string_view kContent = "content", kContent64 = "content_base64";
constexpr uint64_t kMostSource = 4 << 20;  // bytes of a source file; more is data
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

enum class FileKind : uint8_t { Other, Html, Text, Archive };

FileKind kind_of(const fs::path& path) {
  std::string name = ascii_lower(path.filename().string());
  if (name.ends_with(".gz") || name.ends_with(".zst")) name.resize(name.rfind('.'));
  const auto ends = [&](std::initializer_list<std::string_view> endings) {
    return std::ranges::any_of(endings, [&](std::string_view end) { return name.ends_with(end); });
  };
  if (ends({".warc", ".wet", ".wat"})) return FileKind::Archive;
  if (ends({".html", ".htm", ".xhtml"})) return FileKind::Html;
  if (ends({".txt", ".md", ".markdown"})) return FileKind::Text;
  return FileKind::Other;
}

// Whole files as records: one, or the pages and texts of a folder in the order of their paths.
class FileSource final : public RecordSource {
 public:
  explicit FileSource(const fs::path& path) : root_(path) {
    if (!fs::is_directory(path)) {
      files_ = {path};
      return;
    }
    files_ = files_below(path);
    std::erase_if(files_, [](const fs::path& file) { return !is_page_file(file); });
  }

  bool next(std::string& line) override {
    if (at_ == files_.size()) return false;
    const fs::path& file = files_[at_++];
    consumed_ += fs::file_size(file);
    const bool single = file == root_;
    std::string id = single ? file.filename().string() : fs::relative(file, root_).generic_string();
    if (!utf8::is_valid(id)) id = printable(id, id.size());
    const bool html = kind_of(file) == FileKind::Html;
    try {
      line = fmt::format("{{{}, {}, {}, {}}}", field("id", id), field("source", root_.string()),
                         field("content_type", html ? "text/html" : "text/plain"),
                         field("html_base64", base64_encode(bytes_of(file))));
    } catch (const Error& error) {
      if (single || error.kind() != Kind::BadInput) throw;
      line = damage_line(0, error.what());  // the folder's other pages go on
    }
    return true;
  }
  uint64_t consumed_bytes() const override { return consumed_; }

 private:
  fs::path root_;
  std::vector<fs::path> files_;
  size_t at_ = 0;
  uint64_t consumed_ = 0;
};

// The files of a folder of source code, in the order of their paths; .git and links are left out.
class TreeSource final : public RecordSource {
 public:
  explicit TreeSource(const fs::path& folder) : folder_(folder), files_(files_below(folder)) {}

  bool next(std::string& line) override {
    if (at_ == files_.size()) return false;
    const fs::path& file = files_[at_++];
    const std::string path = fs::relative(file, folder_).generic_string();
    const uint64_t size = fs::file_size(file);
    consumed_ += size;
    line = fmt::format("{{{}, {}, {}", field("id", path), field("path", path),
                       field("source", folder_.string()));
    if (size > kMostSource) {
      line += fmt::format(", \"bytes\": {}}}", size);
      return true;
    }
    if (const std::string license = license_of(file.parent_path()); !license.empty()) {
      line += ", " + field("license", license);
    }
    line += ", " + field(kContent64, base64_encode(read_file(file, kMostSource))) + "}";
    return true;
  }
  uint64_t consumed_bytes() const override { return consumed_; }

 private:
  // What the nearest LICENSE or COPYING above a file says.
  std::string license_of(const fs::path& folder) {
    const auto known = licenses_.find(folder.string());
    if (known != licenses_.end()) return known->second;
    std::string license;
    for (const char* name : {"LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING", "COPYING.txt"}) {
      if (!license.empty() || !fs::is_regular_file(folder / name)) continue;
      license = source_license(read_file(folder / name, kMostSource));
    }
    if (license.empty() && folder != folder_ && folder.has_relative_path()) {
      license = license_of(folder.parent_path());
    }
    return licenses_[folder.string()] = license;
  }

  fs::path folder_;
  std::vector<fs::path> files_;
  std::map<std::string, std::string> licenses_;  // by folder
  size_t at_ = 0;
  uint64_t consumed_ = 0;
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

struct ExtractSettings {
  std::string html_field;
  bool repair = true;
  std::vector<std::string> keep;  // of the rules that leave source files out
  bool source_trees = false;      // what folders are
};

class ExtractWorker final : public StageWorker {
 public:
  explicit ExtractWorker(const ExtractSettings& settings) : settings_(settings) {}

  Verdict process(Record& record, const Place& place) override {
    if (settings_.html_field.empty() && record.string("path")) {
      if (const auto verdict = source_file(record)) return *verdict;
    }
    Verdict verdict = read(record, place);
    if (!settings_.repair || !verdict.keep) return verdict;
    std::string repaired = repair_text(record.text());
    if (repaired == record.text()) return verdict;
    record.set_text(std::move(repaired));
    record.set_raw("repaired", "true");
    return verdict;
  }

 private:
  // A record of a source file: its language, its licence, and why it is left out.
  std::optional<Verdict> source_file(Record& record) const {
    std::optional<std::string> bytes = record.string(kContent);
    if (const auto coded = record.string(kContent64)) {
      std::string decoded;
      if (!coded->empty() && !base64_decode(*coded, decoded)) {
        throw_bad_input("holds no base64 in 'content_base64'");
      }
      bytes = std::move(decoded);
    }
    if (!bytes) {
      const auto size = record.number("bytes");
      if (!size) return std::nullopt;
      record.set_text("");
      return Verdict{false, "source.too_large", *size, static_cast<double>(kMostSource)};
    }
    record.remove(kContent);
    record.remove(kContent64);
    const std::string path = *record.string("path");
    const auto dropped = [](const char* rule) { return Verdict{false, rule, 1, 0}; };
    if (is_binary(*bytes)) {
      record.set_text("");
      record.set_raw("binary", "true");
      return dropped("source.binary");
    }
    set_text(record, with_line_feeds(decode_text(*bytes, "text/plain", /*html=*/false).utf8));
    const std::string_view text = record.text();
    const std::string_view language = source_language(path, text);
    if (!language.empty()) record.set("lang", language);
    if (const std::string license = source_license(text); !license.empty()) {
      record.set("license", license);
    }
    const SourceFacts facts = source_facts(path, text, language);
    std::optional<Verdict> verdict;
    const auto state = [&](const char* name, bool holds) {
      if (!holds) return;
      record.set_raw(name, "true");
      if (!verdict && std::ranges::find(settings_.keep, name) == settings_.keep.end()) {
        verdict = Verdict{false, std::string("source.") + name, 1, 0};
      }
    };
    state("vendored", facts.vendored);
    state("generated", facts.generated);
    state("minified", facts.minified);
    return verdict ? *verdict : Verdict{};
  }

  Verdict read(Record& record, const Place&) {
    if (const auto damage = record.string(kDamage)) {
      throw BadRecord(static_cast<int64_t>(record.number(kOffset).value_or(0)), *damage);
    }
    std::string name = settings_.html_field;
    if (name.empty()) {
      name = !record.raw("html").empty()          ? "html"
             : !record.raw("html_base64").empty() ? "html_base64"
                                                  : "text";
    }
    auto value = record.string(name);
    if (!value) {
      throw_bad_input(settings_.html_field.empty()
                          ? "has none of the fields html, html_base64, text"
                          : "has no text in the field '" + name + "'");
    }
    if (name == "text" && settings_.html_field.empty()) {
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

  const ExtractSettings& settings_;
};

class ExtractStage final : public Stage {
 public:
  explicit ExtractStage(ExtractSettings settings) : settings_(std::move(settings)) {}
  int version() const override { return 2; }
  std::string_view name() const override { return "extract"; }
  nlohmann::ordered_json settings() const override {
    return {{"html_field", settings_.html_field},
            {"repair", settings_.repair},
            {"keep", settings_.keep}};
  }
  std::string text_field() const override { return ""; }
  std::unique_ptr<StageWorker> worker() const override {
    return std::make_unique<ExtractWorker>(settings_);
  }
  std::unique_ptr<RecordSource> open(const fs::path& path) const override {
    if (fs::is_directory(path)) {
      if (settings_.source_trees) return std::make_unique<TreeSource>(path);
      return std::make_unique<FileSource>(path);
    }
    const FileKind kind = kind_of(path);
    if (kind == FileKind::Archive) return std::make_unique<WarcSource>(path);
    if (kind != FileKind::Other) return std::make_unique<FileSource>(path);
    return nullptr;
  }

 private:
  ExtractSettings settings_;
};

}  // namespace

bool is_page_file(const fs::path& path) {
  const FileKind kind = kind_of(path);
  return kind == FileKind::Html || kind == FileKind::Text;
}

bool is_archive_file(const fs::path& path) { return kind_of(path) == FileKind::Archive; }

std::unique_ptr<Stage> make_extract_stage(StageSettings& settings, const std::string& html_field,
                                          bool source_trees) {
  ExtractSettings out{html_field, settings.flag("repair", true), {}, source_trees};
  const std::string keep = settings.text("keep", "");
  for (const std::string_view flag : python::split_at(keep, ",")) {
    if (flag.empty() && keep.empty()) break;
    if (flag != "generated" && flag != "minified" && flag != "vendored") {
      throw Error(Kind::Misused,
                  fmt::format("--set keep: there is no rule '{}'", printable(flag, 40)),
                  "generated, minified, vendored");
    }
    out.keep.emplace_back(flag);
  }
  settings.finish();
  return std::make_unique<ExtractStage>(std::move(out));
}

}  // namespace quern
