#include "serve/runs.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/utf8.h"
#include "serve/api_error.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMostRuns = 200, kMostEntries = 10'000, kMostColumns = 32;
constexpr size_t kMostPoints = 800;  // more than a screen can show
constexpr int64_t kMostBytes = int64_t{64} << 20;

struct Descriptor {
  explicit Descriptor(int number) : value(number) {}
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  explicit operator bool() const { return value >= 0; }
  int value;
};

// A name that leads one level down, and that a page can show.
bool is_run_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.size() <= 255 && utf8::is_valid(name) &&
         std::none_of(name.begin(), name.end(), [](unsigned char c) {
           return c == '/' || c == '\\' || c < 0x20 || c == 0x7F;
         });
}

int open_run(int folder, const std::string& name) {
  return ::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

// A plain file of a run; nothing where it is missing or something else.
struct RunFile {
  RunFile(int run, const char* name)
      : descriptor(::openat(run, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) {
    found = descriptor && ::fstat(descriptor.value, &status) == 0 && S_ISREG(status.st_mode);
  }
  int64_t updated() const { return found ? status.st_mtim.tv_sec : 0; }
  std::string tag() const {
    return found ? fmt::format("{:x}.{:x}.{:x}", status.st_size, status.st_mtim.tv_sec,
                               status.st_mtim.tv_nsec)
                 : "0";
  }
  std::string read(const std::string& name) const {
    if (!found) return {};
    if (status.st_size > kMostBytes) {
      throw_bad_input(fmt::format("{}: has more than {} MB", name, kMostBytes >> 20),
                      "quern plot draws runs of any length");
    }
    std::string text(static_cast<size_t>(status.st_size), '\0');
    size_t have = 0;
    while (have < text.size()) {
      const ssize_t got = ::pread(descriptor.value, text.data() + have, text.size() - have,
                                  static_cast<off_t>(have));
      if (got <= 0) break;  // it became shorter meanwhile
      have += static_cast<size_t>(got);
    }
    text.resize(have);
    return text;
  }
  Descriptor descriptor;
  struct stat status {};
  bool found = false;
};

int64_t now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> cells;
  while (true) {
    const size_t comma = line.find(',');
    cells.push_back(line.substr(0, comma));
    if (comma == line.npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

// Columns of numbers, and one of texts where `text_column` names it.
struct Table {
  std::vector<std::string> names;         // of the columns of numbers
  std::vector<std::vector<double>> rows;  // as many numbers each as there are names
  std::vector<std::string> words;         // of each row
  size_t skipped = 0;
};

// The last line counts only once its end is there: the run is writing it.
Table parse(std::string_view text, std::string_view text_column) {
  Table table;
  std::vector<std::string> header;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == text.npos) break;
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const auto cells = split(line);
    if (header.empty()) {
      if (cells.size() > kMostColumns) break;
      for (const std::string_view cell : cells) {
        header.emplace_back(utf8::is_valid(cell) ? cell : "?");
        if (cell != text_column) table.names.push_back(header.back());
      }
      continue;
    }
    std::vector<double> row;
    std::string word;
    bool good = cells.size() == header.size();
    for (size_t i = 0; good && i < cells.size(); ++i) {
      if (header[i] == text_column) {
        word = cells[i];
        good = utf8::is_valid(word);
        continue;
      }
      double value = 0;
      const char* last = cells[i].data() + cells[i].size();
      const auto [stop, failure] = std::from_chars(cells[i].data(), last, value);
      good = failure == std::errc{} && stop == last;
      row.push_back(value);
    }
    if (!good) {
      ++table.skipped;
      continue;
    }
    table.rows.push_back(std::move(row));
    table.words.push_back(std::move(word));
  }
  return table;
}

bool counts(std::string_view column) {
  return column == "step" || column == "tokens" || column == "seconds";
}

ordered_json number(double value, bool exact) {
  if (!std::isfinite(value)) return nullptr;
  if (exact) return value;
  return std::stod(fmt::format("{:.6g}", value));
}

// Rows as columns; neighbours that do not fit become their mean, at the place of their last.
ordered_json columns(const std::vector<std::string>& names,
                     const std::vector<const std::vector<double>*>& rows) {
  const size_t width = (rows.size() + kMostPoints - 1) / kMostPoints;
  ordered_json out = ordered_json::object();
  for (size_t column = 0; column < names.size(); ++column) {
    const bool exact = counts(names[column]);
    ordered_json& list = out[names[column]] = ordered_json::array();
    for (size_t begin = 0; begin < rows.size(); begin += width) {
      const size_t end = std::min(begin + width, rows.size());
      double sum = 0;
      size_t finite = 0;
      for (size_t i = begin; i < end; ++i) {
        const double value = (*rows[i])[column];
        if (!std::isfinite(value)) continue;
        sum += value;
        ++finite;
      }
      const double shown = exact ? (*rows[end - 1])[column] : sum / static_cast<double>(finite);
      list.push_back(number(shown, exact));
    }
  }
  return out;
}

ordered_json all_columns(const Table& table) {
  std::vector<const std::vector<double>*> rows;
  for (const auto& row : table.rows) rows.push_back(&row);
  return columns(table.names, rows);
}

ordered_json by_source(const Table& table) {
  std::vector<std::pair<std::string, std::vector<const std::vector<double>*>>> sources;
  for (size_t i = 0; i < table.rows.size(); ++i) {
    auto at = std::find_if(sources.begin(), sources.end(),
                           [&](const auto& source) { return source.first == table.words[i]; });
    if (at == sources.end()) {
      if (sources.size() >= kMostColumns) continue;
      at = sources.insert(at, {table.words[i], {}});
    }
    at->second.push_back(&table.rows[i]);
  }
  ordered_json out = ordered_json::array();
  for (const auto& [source, rows] : sources) {
    ordered_json entry = {{"source", source}};
    entry.update(columns(table.names, rows));
    out.push_back(std::move(entry));
  }
  return out;
}

HttpResponse json_response(const ordered_json& body) {
  HttpResponse response;
  response.body = dump(body);
  response.headers.emplace_back("Cache-Control", "no-cache");
  return response;
}

}  // namespace

Runs::Runs(const fs::path& folder) {
  folder_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_ < 0) {
    throw Error(Kind::Misused, fmt::format("--runs: {} is no folder", folder.string()),
                "name the folder that holds the runs of quern pretrain");
  }
}

Runs::~Runs() { ::close(folder_); }

HttpResponse Runs::list() const {
  std::vector<std::pair<int64_t, std::string>> found;
  // fdopendir takes the descriptor over, and reading moves its place: each call has its own.
  const int own = ::openat(folder_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(own < 0 ? nullptr : ::fdopendir(own),
                                                    ::closedir);
  if (!entries) throw Error(Kind::Failed, "the folder of runs cannot be read");
  for (size_t seen = 0; seen < kMostEntries; ++seen) {
    const dirent* entry = ::readdir(entries.get());
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (!is_run_name(name)) continue;
    const Descriptor run(open_run(folder_, name));
    if (!run) continue;
    const RunFile metrics(run.value, "metrics.csv");
    if (metrics.found) found.emplace_back(metrics.updated(), name);
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  if (found.size() > kMostRuns) found.resize(kMostRuns);
  ordered_json out = {{"now", now_s()}, {"runs", ordered_json::array()}};
  for (const auto& [updated, name] : found) {
    out["runs"].push_back({{"name", name}, {"updated", updated}});
  }
  return json_response(out);
}

HttpResponse Runs::one(std::string_view wanted, const HttpRequest& request) const {
  const std::string name(wanted);
  const auto missing = [] { return error_response(error_of_status(404, "there is no such run")); };
  if (!is_run_name(name)) return missing();
  const Descriptor run(open_run(folder_, name));
  if (!run) return missing();
  const RunFile metrics(run.value, "metrics.csv"), validation(run.value, "validation.csv");
  if (!metrics.found) return missing();
  const std::string tag = fmt::format("\"{}-{}\"", metrics.tag(), validation.tag());
  HttpResponse response;
  if (request.header("if-none-match") == tag) {
    response.status = 304;
    response.headers = {{"ETag", tag}, {"Cache-Control", "no-cache"}};
    return response;
  }
  const Table steps = parse(metrics.read("metrics.csv"), "");
  const Table checks = parse(validation.read("validation.csv"), "source");
  response = json_response({{"name", name},
                            {"now", now_s()},
                            {"updated", std::max(metrics.updated(), validation.updated())},
                            {"metrics", all_columns(steps)},
                            {"validation", by_source(checks)},
                            {"skipped", steps.skipped + checks.skipped}});
  response.headers.emplace_back("ETag", tag);
  return response;
}

}  // namespace quern::serve
