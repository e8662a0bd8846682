// The frame that every stage of the data pipeline runs in: records in, the kept ones out in shards,
// the dropped ones beside them under the rule that dropped them, a manifest at the end.
//
// The output's bytes depend on the inputs and the settings alone: not on the number of workers, the
// time or the machine. Input file i becomes shard i. A run that was killed goes on with the first
// shard that is not whole.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "data/pipeline/ordered.h"
#include "data/pipeline/record.h"
#include "data/pipeline/shards.h"

namespace quern {

struct Verdict {
  bool keep = true;
  std::string rule;  // that drops it: "gopher.min_words"
  double value = 0, threshold = 0;
};

// Where a record stands.
struct Place {
  size_t input = 0;  // index of its file
  int64_t line = 0;  // from 1
  bool operator==(const Place&) const = default;
};

// Thrown for a record that stands at a byte of its file, where a line says nothing.
struct BadRecord : Error {
  BadRecord(int64_t at, const std::string& reason) : Error(Kind::BadInput, reason), offset(at) {}
  int64_t offset;
};

// Records out of a file that holds no lines: a page, a web archive. Each comes as one line of JSON.
class RecordSource {
 public:
  virtual ~RecordSource() = default;
  virtual bool next(std::string& line) = 0;
  virtual uint64_t consumed_bytes() const = 0;
};

// Belongs to one thread.
class StageWorker {
 public:
  virtual ~StageWorker() = default;
  // May change the record. Throws BadInput for a record that it cannot read.
  virtual Verdict process(Record& record, const Place& place) = 0;
};

class Stage {
 public:
  virtual ~Stage() = default;
  virtual std::string_view name() const = 0;
  virtual int version() const { return 1; }  // raised when the same input gives other output
  // Everything that the output depends on beside the inputs.
  virtual nlohmann::ordered_json settings() const = 0;
  // The field that must hold a text; empty: none must.
  virtual std::string text_field() const { return "text"; }
  virtual std::unique_ptr<StageWorker> worker() const = 0;
  // Null for a file of lines.
  virtual std::unique_ptr<RecordSource> open(const fs::path&) const { return nullptr; }
};

struct StageOptions {
  std::vector<fs::path> inputs;
  fs::path out;
  int workers = 1;
  bool strict = false;  // a bad record ends the run instead of being counted
  // Other processes with the same options work on the same folder: each takes inputs that nobody has.
  bool shared = false;
  std::function<void(uint64_t file_bytes)> on_progress;
  const std::atomic<bool>* cancel = nullptr;  // then Error(Partial) is thrown
};

struct StageReport {
  int64_t in = 0, out = 0, bad = 0;
  std::map<std::string, int64_t> dropped;  // by rule
  uint64_t line_bytes = 0;                 // of the input, decompressed
  bool already_done = false;               // by an earlier run
  bool left_to_others =
      false;              // they are still at inputs of theirs; the last one writes the manifest
  std::string first_bad;  // what was wrong with it, and where
};

// Reads all records without writing any: for stages that must see everything before they judge.
// `make_worker` is called once per thread; the results of its worker come to `take` in order. Bad
// records are passed over: run_stage() counts them.
template <class Result>
void scan_records(
    const StageOptions& options, const std::string& text_field,
    const std::function<std::function<void(Record&, const Place&, Result&)>()>& make_worker,
    const std::function<void(Result)>& take);

// Throws Misused where `out` holds the work of another stage, other settings or other inputs, or
// another process writes there and the two do not share it.
StageReport run_stage(const Stage& stage, const StageOptions& options);

// What a stage made that reads all of its inputs before it writes.
struct WrittenShards {
  struct Shard {
    std::string file;  // in the output folder
    int64_t documents = 0;
    uint64_t text_bytes = 0;
  };
  std::vector<Shard> shards;
  std::vector<int64_t> input_documents;  // of each input
  StageReport report;
};

// The same for a stage whose shards are not those of its inputs: `write` makes them all, in the output
// folder. A run that was killed begins again. Stage::worker() is not called.
StageReport run_whole_stage(const Stage& stage, const StageOptions& options,
                            const std::function<WrittenShards()>& write);

// Settings as "key=value" words. Each stage takes those it knows; what is left is an error that
// names the nearest.
class StageSettings {
 public:
  explicit StageSettings(const std::vector<std::string>& words);  // Throws Misused.

  std::string text(std::string_view key, std::string fallback);
  double number(std::string_view key, double fallback, double least, double most);
  int64_t integer(std::string_view key, int64_t fallback, int64_t least, int64_t most);
  bool flag(std::string_view key, bool fallback);  // on, off
  void finish() const;                             // Throws Misused for a key that nobody took.

 private:
  const std::string* find(std::string_view key);

  std::vector<std::pair<std::string, std::string>> given_;
  std::vector<bool> taken_;
  std::vector<std::string> known_;
};

// ---- What scan_records stands on.

// Lines of one input, some at a time.
struct LineBatch {
  std::string lines;  // with their ends
  Place first;        // of the first line
};
class BatchReader {
 public:
  // Throws BadInput where the file cannot be read.
  BatchReader(const StageOptions& options, size_t input,
              std::unique_ptr<RecordSource> records = nullptr);
  ~BatchReader();
  std::optional<LineBatch> next();
  uint64_t consumed_bytes() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};
// Calls `see` with each line that is not blank.
void for_each_line(const LineBatch& batch,
                   const std::function<void(std::string_view line, const Place&)>& see);

template <class Result>
void scan_records(
    const StageOptions& options, const std::string& text_field,
    const std::function<std::function<void(Record&, const Place&, Result&)>()>& make_worker,
    const std::function<void(Result)>& take) {
  for (size_t input = 0; input < options.inputs.size(); ++input) {
    BatchReader reader(options, input);
    ordered_pipeline<LineBatch, Result>(
        options.workers, [&] { return reader.next(); },
        [&]() -> std::function<Result(LineBatch)> {
          auto parser = std::make_shared<RecordParser>();
          return [parser, work = make_worker(), &text_field](const LineBatch& batch) {
            Result result;
            for_each_line(batch, [&](std::string_view line, const Place& place) {
              try {
                Record record(*parser, line, text_field);
                work(record, place, result);
              } catch (const Error& error) {
                if (error.kind() != Kind::BadInput) throw;
              }
            });
            return result;
          };
        },
        take);
  }
}

}  // namespace quern
