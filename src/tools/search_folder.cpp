// Passages of a folder's files in an FTS5 index: words by SQLite's unicode61 with Porter's stems,
// scripts without spaces by trigrams.
#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <set>

#include "core/ascii.h"
#include "core/error.h"
#include "core/utf8.h"
#include "tools/builtin.h"

namespace quern {
namespace {

constexpr uint64_t kMaxFile = uint64_t{4} << 20;
constexpr uint64_t kMaxAll = uint64_t{256} << 20;
constexpr size_t kMaxFiles = 20'000;
constexpr size_t kPassage = 1200;  // bytes of a passage, about
constexpr int kShown = 5;

bool is_text(const fs::path& path) {
  static const std::set<std::string> kKnown = {
      ".txt",  ".md",   ".markdown", ".rst",   ".html", ".htm", ".csv",   ".tsv", ".json", ".jsonl",
      ".toml", ".yaml", ".yml",      ".ini",   ".cfg",  ".xml", ".tex",   ".c",   ".h",    ".cc",
      ".cpp",  ".hpp",  ".cu",       ".py",    ".js",   ".ts",  ".tsx",   ".jsx", ".go",   ".rs",
      ".java", ".kt",   ".rb",       ".php",   ".sh",   ".sql", ".css",   ".r",   ".m",    ".swift",
      ".log",  ".org",  ".adoc",     ".cmake", ".lua",  ".pl",  ".scala", ".inl", ""};
  return kKnown.contains(ascii_lower(path.extension().string()));
}

// What a reader sees of an HTML page, line by line; tags, scripts and styles are left out.
std::string html_text(std::string_view html) {
  std::string out;
  const auto starts = [&](size_t at, std::string_view word) {
    if (html.size() - at < word.size()) return false;
    for (size_t i = 0; i < word.size(); ++i) {
      const char c = html[at + i];
      if (ascii_lower(c) != word[i]) return false;
    }
    return true;
  };
  constexpr std::pair<std::string_view, char> kEntities[] = {{"&amp;", '&'},  {"&lt;", '<'},
                                                             {"&gt;", '>'},   {"&quot;", '"'},
                                                             {"&#39;", '\''}, {"&nbsp;", ' '}};
  for (size_t at = 0; at < html.size();) {
    if (html[at] == '<') {
      bool skipped = false;
      for (const std::string_view name : {"script", "style", "!--"}) {
        if (!starts(at + 1, name)) continue;
        const std::string end = name == "!--" ? "-->" : fmt::format("</{}", name);
        size_t close = at;
        while (close < html.size() && !starts(close, end)) {
          if (html[close] == '\n') out += '\n';
          ++close;
        }
        at = name == "!--" ? std::min(close + 3, html.size()) : close;
        skipped = true;
        break;
      }
      if (skipped && (at >= html.size() || html[at] != '<')) continue;
      const size_t close = html.find('>', at);
      if (close == html.npos) break;
      for (size_t i = at; i < close; ++i) {
        if (html[i] == '\n') out += '\n';  // lines keep their numbers
      }
      out += ' ';
      at = close + 1;
      continue;
    }
    bool entity = false;
    if (html[at] == '&') {
      for (const auto& [name, c] : kEntities) {
        if (!starts(at, name)) continue;
        out += c;
        at += name.size();
        entity = true;
        break;
      }
    }
    if (!entity) out += html[at++];
  }
  return out;
}

bool has_no_spaces(char32_t c) {  // Han, kana, Hangul, Thai
  return (c >= 0x3040 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) ||
         (c >= 0xAC00 && c <= 0xD7AF) || (c >= 0x20000 && c <= 0x3FFFF) ||
         (c >= 0x0E00 && c <= 0x0E7F);
}

class Database {
 public:
  Database() {
    if (sqlite3_open(":memory:", &db_) != SQLITE_OK) throw Error(Kind::Failed, "SQLite: no memory");
    run("CREATE VIRTUAL TABLE words USING fts5(text, path UNINDEXED, line UNINDEXED, "
        "tokenize = \"porter unicode61 remove_diacritics 2\")");
    run("CREATE VIRTUAL TABLE grams USING fts5(text, path UNINDEXED, line UNINDEXED, "
        "tokenize = 'trigram')");
    run("BEGIN");
    for (const char* table : {"words", "grams"}) {
      sqlite3_stmt*& statement = table[0] == 'w' ? into_words_ : into_grams_;
      const std::string text = fmt::format("INSERT INTO {} VALUES (?, ?, ?)", table);
      check(sqlite3_prepare_v2(db_, text.c_str(), -1, &statement, nullptr));
    }
  }
  ~Database() {
    sqlite3_finalize(into_words_);
    sqlite3_finalize(into_grams_);
    sqlite3_close(db_);
  }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void add(const std::string& text, const std::string& path, int line) {
    bool grams = false;
    for (size_t at = 0; at < text.size() && !grams;) {
      const utf8::Point point = utf8::decode(std::string_view(text).substr(at));
      grams = has_no_spaces(point.value);
      at += point.length;
    }
    for (sqlite3_stmt* statement : {into_words_, grams ? into_grams_ : nullptr}) {
      if (statement == nullptr) continue;
      sqlite3_reset(statement);
      bind(statement, 1, text);
      bind(statement, 2, path);
      sqlite3_bind_int(statement, 3, line);
      check(sqlite3_step(statement));
    }
  }
  void finish() { run("COMMIT"); }

  struct Hit {
    std::string text, path;
    int line;
  };
  std::vector<Hit> find(const char* table, const std::string& match) {
    const std::string text = fmt::format(
        "SELECT text, path, line FROM {0} WHERE {0} MATCH ? ORDER BY bm25({0}) LIMIT {1}", table,
        kShown);
    return rows(text, match);
  }
  // For what is shorter than a trigram.
  std::vector<Hit> find_part(const std::string& part) {
    return rows(
        fmt::format("SELECT text, path, line FROM grams WHERE instr(text, ?) LIMIT {}", kShown),
        part);
  }

 private:
  void run(const char* text) { check(sqlite3_exec(db_, text, nullptr, nullptr, nullptr)); }
  void check(int code) const {
    if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW) return;
    throw Error(Kind::Failed, fmt::format("the index: {}", sqlite3_errmsg(db_)));
  }
  static void bind(sqlite3_stmt* statement, int place, const std::string& text) {
    sqlite3_bind_text(statement, place, text.data(), static_cast<int>(text.size()),
                      SQLITE_TRANSIENT);
  }
  std::vector<Hit> rows(const std::string& text, const std::string& value) {
    sqlite3_stmt* statement = nullptr;
    check(sqlite3_prepare_v2(db_, text.c_str(), -1, &statement, nullptr));
    bind(statement, 1, value);
    std::vector<Hit> out;
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
      const auto column = [&](int i) {
        return std::string(reinterpret_cast<const char*>(sqlite3_column_text(statement, i)));
      };
      out.push_back({column(0), column(1), sqlite3_column_int(statement, 2)});
    }
    sqlite3_finalize(statement);
    check(code);
    return out;
  }

  sqlite3* db_ = nullptr;
  sqlite3_stmt *into_words_ = nullptr, *into_grams_ = nullptr;
};

class SearchFolder : public Tool {
 public:
  explicit SearchFolder(const fs::path& folder) : Tool(make_spec()), folder_(folder) {
    if (!fs::is_directory(folder)) throw_bad_input(folder.string() + ": is no folder");
  }

  ToolResult call(const OrderedJson& arguments, const CallContext& context) override {
    if (database_ == nullptr) read(context);
    const std::string query = text_argument(arguments, "query");
    // Words as they are: nothing in them is FTS5's syntax.
    std::string words, grams;
    std::vector<std::string> parts;
    std::string word, run;
    std::vector<char32_t> points;
    const auto add = [](std::string& to, const std::string& text) {
      to += fmt::format("{}\"{}\"", to.empty() ? "" : " OR ", text);
    };
    const auto end_word = [&] {
      if (!word.empty()) add(words, word);
      word.clear();
    };
    const auto end_run = [&] {
      if (points.size() >= 3) {
        for (size_t i = 0; i + 3 <= points.size(); ++i) {
          std::string gram;
          for (size_t k = i; k < i + 3; ++k) utf8::append(gram, points[k]);
          add(grams, gram);
        }
      } else if (!points.empty()) {
        parts.push_back(run);
      }
      points.clear();
      run.clear();
    };
    for (size_t at = 0; at < query.size();) {
      const utf8::Point point = utf8::decode(std::string_view(query).substr(at));
      at += point.length;
      const char32_t c = point.value;
      const bool letter = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                          (c >= 'A' && c <= 'Z') || c == '_' || (c >= 0xC0 && c < 0x2000);
      if (has_no_spaces(c)) {
        end_word();
        points.push_back(c);
        utf8::append(run, c);
      } else if (letter) {
        end_run();
        utf8::append(word, c);
      } else {
        end_word();
        end_run();
      }
    }
    end_word();
    end_run();
    if (words.empty() && grams.empty() && parts.empty()) return {"the query has no words", true};
    std::vector<Database::Hit> hits;
    const auto take = [&](std::vector<Database::Hit> more) {
      for (Database::Hit& hit : more) {
        const bool known = std::ranges::any_of(hits, [&](const Database::Hit& other) {
          return other.path == hit.path && other.line == hit.line;
        });
        if (!known && hits.size() < kShown) hits.push_back(std::move(hit));
      }
    };
    if (!grams.empty()) take(database_->find("grams", grams));
    for (const std::string& part : parts) take(database_->find_part(part));
    if (!words.empty()) take(database_->find("words", words));
    std::string out;
    for (const Database::Hit& hit : hits) {
      out += fmt::format("{}:{}\n{}\n\n", hit.path, hit.line, hit.text);
    }
    return {out.empty() ? "nothing was found" : out + note_};
  }

 private:
  static ToolSpec make_spec() {
    ToolSpec spec;
    spec.name = "search_folder";
    spec.description =
        "Searches the files of a folder: the passages that fit best, with file and line.";
    spec.parameters = object_schema(
        R"({"query": {"type": "string", "description": "words to look for"}})", {"query"});
    spec.timeout_s = 60;
    spec.origin = "built in";
    return spec;
  }

  void read(const CallContext& context) {
    auto database = std::make_unique<Database>();
    uint64_t all = 0;
    std::vector<fs::path> files;
    std::error_code failure;
    // Links are not followed: they may lead out of the folder.
    for (fs::recursive_directory_iterator entry(folder_, failure), end; !failure && entry != end;
         entry.increment(failure)) {
      const std::string name = entry->path().filename().string();
      if (name.starts_with('.') || entry->is_symlink()) {
        if (entry->is_directory()) entry.disable_recursion_pending();
        continue;
      }
      if (entry->is_regular_file() && is_text(entry->path())) files.push_back(entry->path());
    }
    std::ranges::sort(files);  // the same answer on every machine
    size_t left_out = 0;
    for (const fs::path& file : files) {
      if (context.cancelled()) throw Error(Kind::Interrupted, "reading the folder was stopped");
      std::error_code unknown;
      const uint64_t size = fs::file_size(file, unknown);
      if (unknown || size > kMaxFile || all + size > kMaxAll ||
          static_cast<size_t>(&file - files.data()) >= kMaxFiles) {
        ++left_out;
        continue;
      }
      std::string text;
      try {
        text = read_file(file.string(), kMaxFile);
      } catch (const Error&) {
        ++left_out;
        continue;
      }
      if (text.substr(0, 4096).find('\0') != text.npos) continue;  // no text
      all += size;
      const std::string extension = file.extension().string();
      if (extension == ".html" || extension == ".htm") text = html_text(text);
      add(*database, text, fs::relative(file, folder_).string());
    }
    database->finish();
    if (left_out > 0) {
      note_ = fmt::format("[{} files are too large, too many or unreadable and were not searched]",
                          left_out);
    }
    database_ = std::move(database);
  }

  // Paragraphs, joined up to a passage's size.
  static void add(Database& database, const std::string& text, const std::string& path) {
    std::string passage;
    int line = 1, begun = 1;
    const auto end = [&] {
      if (passage.find_first_not_of(" \t\r\n") != passage.npos) database.add(passage, path, begun);
      passage.clear();
    };
    for (size_t at = 0; at < text.size(); ++line) {
      const size_t stop = std::min(text.find('\n', at), text.size());
      // A line of its own may be as long as it likes.
      for (size_t from = at; from < stop || from == at; from += kPassage) {
        const std::string part = text.substr(from, std::min(stop - from, kPassage));
        const bool blank = part.find_first_not_of(" \t\r") == part.npos;
        if (passage.size() + part.size() > kPassage || (blank && passage.size() > kPassage / 2))
          end();
        if (passage.empty()) begun = line;
        if (!blank || !passage.empty()) passage += part + "\n";
      }
      at = stop + 1;
    }
    end();
  }

  fs::path folder_;
  std::unique_ptr<Database> database_;
  std::string note_;
};

}  // namespace

std::unique_ptr<Tool> make_search_folder(const fs::path& folder) {
  return std::make_unique<SearchFolder>(folder);
}

}  // namespace quern
