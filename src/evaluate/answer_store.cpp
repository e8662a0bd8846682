#include "evaluate/answer_store.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "core/json.h"
#include "evaluate/prompts.h"

namespace quern {
namespace {

constexpr int kVersion = 1;

nlohmann::ordered_json to_json(const ItemAnswer& answer) {
  nlohmann::ordered_json out;
  if (answer.response.choice_logprobs.empty()) {
    out["response"] = answer.response.text;
  } else {
    out["choice_logprobs"] = answer.response.choice_logprobs;
  }
  out["prompt_tokens"] = answer.prompt_tokens;
  out["reused_tokens"] = answer.reused_tokens;
  out["new_tokens"] = answer.new_tokens;
  out["truncated"] = answer.truncated;
  out["finish"] = answer.finish;
  out["seconds"] = answer.seconds;
  return out;
}

ItemAnswer from_json(const Json& json) {
  ItemAnswer answer;
  if (const auto scores = json.find("choice_logprobs")) {
    for (const Json& score : scores->items()) {
      answer.response.choice_logprobs.push_back(score.number());
    }
  } else {
    answer.response.text = json.at("response").string();
  }
  answer.prompt_tokens = json.at("prompt_tokens").integer();
  answer.reused_tokens = json.at("reused_tokens").integer();
  answer.new_tokens = json.at("new_tokens").integer();
  answer.truncated = json.at("truncated").boolean();
  answer.finish = json.at("finish").string();
  answer.seconds = json.at("seconds").number();
  return answer;
}

}  // namespace

struct AnswerStore::Database {
  fs::path path;
  sqlite3* handle = nullptr;

  ~Database() { sqlite3_close(handle); }

  [[noreturn]] void fail(const char* what) const {
    const int code = sqlite3_errcode(handle) & 0xFF;
    const std::string message =
        fmt::format("{}: {}: {}", path.string(), what, sqlite3_errmsg(handle));
    if (code == SQLITE_FULL) throw Error(Kind::NoResources, message);
    if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT || code == SQLITE_CANTOPEN) {
      throw_bad_input(message, "remove it, or name another with --cache");
    }
    throw Error(Kind::Failed, message);
  }
  void run(const char* sql) const {
    if (sqlite3_exec(handle, sql, nullptr, nullptr, nullptr) != SQLITE_OK) fail("cannot write");
  }

  // A statement with its values; gives the first column of the first row.
  std::optional<std::string> query(const char* sql,
                                   std::initializer_list<std::string_view> values) const {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(handle, sql, -1, &statement, nullptr) != SQLITE_OK) fail("cannot read");
    int place = 0;
    for (const std::string_view value : values) {
      sqlite3_bind_text(statement, ++place, value.data(), static_cast<int>(value.size()),
                        SQLITE_STATIC);
    }
    const int step = sqlite3_step(statement);
    std::optional<std::string> result;
    if (step == SQLITE_ROW) {
      const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
      const auto size = static_cast<size_t>(sqlite3_column_bytes(statement, 0));
      result = text == nullptr ? std::string() : std::string(text, size);
    }
    sqlite3_finalize(statement);
    if (step != SQLITE_ROW && step != SQLITE_DONE) fail("cannot read or write");
    return result;
  }
};

AnswerStore::AnswerStore(const fs::path& path) : database_(std::make_unique<Database>()) {
  database_->path = path;
  std::error_code failure;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), failure);
  if (sqlite3_open(path.c_str(), &database_->handle) != SQLITE_OK) database_->fail("cannot open");
  sqlite3_busy_timeout(database_->handle, 10'000);
  const std::string version = database_->query("PRAGMA user_version", {}).value_or("0");
  if (version != "0" && version != std::to_string(kVersion)) {
    throw_bad_input(
        fmt::format("{}: is a cache of version {}, expected {}", path.string(), version, kVersion),
        "remove it, or name another with --cache");
  }
  database_->query("PRAGMA journal_mode = WAL", {});
  database_->run("PRAGMA synchronous = NORMAL");
  database_->run("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)");
  database_->run("CREATE TABLE IF NOT EXISTS files (stamp TEXT PRIMARY KEY, sha256 TEXT NOT NULL)");
  database_->run(fmt::format("PRAGMA user_version = {}", kVersion).c_str());
}

AnswerStore::~AnswerStore() = default;

std::optional<ItemAnswer> AnswerStore::find(const std::string& key) {
  const auto text = database_->query("SELECT answer FROM answers WHERE key = ?", {key});
  if (!text) return {};
  return from_json(Json::parse(*text, database_->path.string()));
}

void AnswerStore::keep(const std::string& key, const ItemAnswer& answer) {
  database_->query("INSERT OR REPLACE INTO answers VALUES (?, ?)", {key, dump(to_json(answer))});
}

std::string AnswerStore::checkpoint_sha256(const fs::path& checkpoint) {
  std::vector<fs::path> files;
  if (fs::is_directory(checkpoint)) {
    for (const auto& entry : fs::directory_iterator(checkpoint)) {
      const std::string name = entry.path().filename().string();
      const bool weighs = name.ends_with(".safetensors") || name.ends_with(".bin") ||
                          name.ends_with(".json") || name.ends_with(".gguf");
      if (entry.is_regular_file() && weighs) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(checkpoint);
  }
  std::string all;
  for (const fs::path& file : files) {
    struct stat info {};
    if (::stat(file.c_str(), &info) != 0) throw_errno(file.string(), "cannot stat");
    const std::string stamp = fmt::format("{}|{}|{}.{}", fs::absolute(file).string(), info.st_size,
                                          info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    auto hash = database_->query("SELECT sha256 FROM files WHERE stamp = ?", {stamp});
    if (!hash) {
      hash = sha256_file(file);
      database_->query("INSERT OR REPLACE INTO files VALUES (?, ?)", {stamp, *hash});
    }
    if (files.size() == 1) return *hash;
    all += file.filename().string() + " " + *hash + "\n";
  }
  return sha256(all);
}

fs::path default_answer_store() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path base = cache != nullptr && *cache != '\0'
                            ? fs::path(cache)
                            : fs::path(home != nullptr ? home : ".") / ".cache";
  return base / "quern" / "answers.sqlite";
}

std::string answer_key(const nlohmann::ordered_json& identity, const Question& question,
                       int task_version) {
  nlohmann::ordered_json all = {{"source", identity},
                                {"item", item_record(*question.item)},
                                {"cut_above", question.cut_above},
                                {"task_version", task_version}};
  if (const SamplingChoice* sampling = question.sampling) {
    const SamplingOptions options = sampling->on({});
    all["drawn"] = {{"sample", question.item->sample},
                    {"temperature", options.temperature},
                    {"top_p", options.top_p},
                    {"seed", options.seed}};
  }
  return sha256(dump(all));
}

}  // namespace quern
