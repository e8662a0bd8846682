// Answers kept as they come, in SQLite, so that an evaluation that was interrupted, however
// roughly, goes on where it was. The key of an answer is everything that could change it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/file.h"
#include "evaluate/answers.h"

namespace quern {

class AnswerStore {
 public:
  // Opens or makes the file. Throws BadInput where it is another version's, or no database.
  explicit AnswerStore(const fs::path& path);
  ~AnswerStore();
  AnswerStore(const AnswerStore&) = delete;
  AnswerStore& operator=(const AnswerStore&) = delete;

  std::optional<ItemAnswer> find(const std::string& key);
  // On disk before it returns as far as the death of this process is concerned.
  void keep(const std::string& key, const ItemAnswer& answer);

  // The SHA-256 of a checkpoint's files, taken anew only where one of them changed.
  std::string checkpoint_sha256(const fs::path& checkpoint);

 private:
  struct Database;
  std::unique_ptr<Database> database_;
};

// $XDG_CACHE_HOME/quern/answers.sqlite, or ~/.cache.
fs::path default_answer_store();

// The key of an item's answer from a source.
std::string answer_key(const nlohmann::ordered_json& identity, const Question& question,
                       int task_version);

}  // namespace quern
