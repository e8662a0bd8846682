#include "data/pipeline/stage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "core/json_string.h"
#include "formats/byte_source.h"

namespace quern {
namespace {

using OrderedTree = nlohmann::ordered_json;

constexpr uint64_t kMaxLine = uint64_t{64} << 20;
constexpr size_t kBatchBytes = 1 << 20;

struct Dropped {
  std::string rule, line;
};

struct Done {
  std::string kept;  // lines with their ends
  std::vector<Dropped> dropped;
  std::vector<std::string> bad;  // records of bad/
  int64_t in = 0, out = 0;
  uint64_t line_bytes = 0, kept_text_bytes = 0;
  std::string first_bad;
};

// A lock on a file or folder, held until the end of its scope or of the process.
class FileLock {
 public:
  FileLock() = default;
  // Nothing where another process holds it; with `wait` until it is free.
  static std::optional<FileLock> take(const fs::path& path, int kind, bool wait = false) {
    FileLock lock;
    const int mode = fs::is_directory(path) ? O_RDONLY | O_DIRECTORY : O_CREAT | O_RDWR;
    lock.descriptor_ = ::open(path.c_str(), mode | O_CLOEXEC, 0666);
    if (lock.descriptor_ < 0) throw_errno(path.string(), "cannot open");
    int got = 0;
    while ((got = ::flock(lock.descriptor_, kind | (wait ? 0 : LOCK_NB))) != 0 && errno == EINTR) {
    }
    if (got != 0) return std::nullopt;
    return lock;
  }
  FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

 private:
  int descriptor_ = -1;
};

// The counts of one input, kept in a file of their own until the manifest is written.
OrderedTree to_json(const StageReport& counts, const std::string& shard_sha, uint64_t kept_text) {
  OrderedTree out;
  out["in"] = counts.in;
  out["out"] = counts.out;
  out["bad"] = counts.bad;
  out["dropped"] = OrderedTree::object();
  for (const auto& [rule, count] : counts.dropped) out["dropped"][rule] = count;
  out["line_bytes"] = counts.line_bytes;
  out["kept_text_bytes"] = kept_text;
  out["sha256"] = shard_sha;
  out["first_bad"] = counts.first_bad;
  return out;
}

void add(StageReport& total, const Json& part) {
  total.in += part.at("in").integer();
  total.out += part.at("out").integer();
  total.bad += part.at("bad").integer();
  for (const auto& [rule, count] : part.at("dropped").members()) {
    total.dropped[rule] += count.integer();
  }
  total.line_bytes += static_cast<uint64_t>(part.at("line_bytes").integer());
  if (total.first_bad.empty()) total.first_bad = part.string_or("first_bad", "");
}

class Run {
 public:
  Run(const Stage& stage, const StageOptions& options) : stage_(stage), options_(options) {}

  StageReport run() {
    if (options_.shared) return run_shared();
    return in_folder([&](const OrderedTree& plan) {
      for (size_t i = 0; i < options_.inputs.size(); ++i) {
        if (!fs::exists(state_file(i))) one_input(i);
        done_bytes_ += input_bytes(options_.inputs[i]);
        if (options_.on_progress) options_.on_progress(done_bytes_);
      }
      const StageReport total = write_manifest(plan);
      for (size_t i = 0; i < options_.inputs.size(); ++i) fs::remove(state_file(i));
      return total;
    });
  }

  // Takes inputs as long as there are some that nobody has. Who finishes the last one writes the
  // manifest, whichever that is. A lock on the folder itself guards its beginning and its end.
  StageReport run_shared() {
    fs::create_directories(options_.out);
    const auto lock = folder_lock(LOCK_SH);
    OrderedTree plan;
    {
      const auto alone = FileLock::take(options_.out, LOCK_EX, /*wait=*/true);
      plan = make_plan();
      if (fs::exists(manifest())) {
        compare(Json::parse_file(manifest().string()), plan);
        return finished();
      }
      begin(plan);
    }
    for (size_t i = 0; i < options_.inputs.size(); ++i) {
      if (!fs::exists(state_file(i))) {
        const auto mine = FileLock::take(lock_file(i), LOCK_EX);
        if (mine && !fs::exists(state_file(i)) && !fs::exists(manifest())) {
          remove_leftovers(shard_name(i));
          one_input(i);
        }
      }
      done_bytes_ += input_bytes(options_.inputs[i]);
      if (options_.on_progress) options_.on_progress(done_bytes_);
    }
    const auto alone = FileLock::take(options_.out, LOCK_EX, /*wait=*/true);
    if (fs::exists(manifest())) return finished();
    for (size_t i = 0; i < options_.inputs.size(); ++i) {
      if (fs::exists(state_file(i))) continue;
      StageReport report;
      report.left_to_others = true;
      return report;
    }
    const StageReport total = write_manifest(plan);
    for (size_t i = 0; i < options_.inputs.size(); ++i) {
      fs::remove(state_file(i));
      fs::remove(lock_file(i));
    }
    fs::remove(plan_file());
    return total;
  }

  StageReport run_whole(const std::function<WrittenShards()>& write) {
    return in_folder([&](OrderedTree manifest) {
      const WrittenShards written = write();
      for (size_t i = 0; i < options_.inputs.size(); ++i) {
        manifest["inputs"][i]["documents"] = written.input_documents[i];
      }
      manifest["shards"] = OrderedTree::array();
      for (const WrittenShards::Shard& shard : written.shards) {
        manifest["shards"].push_back({{"file", shard.file},
                                      {"sha256", sha256_file(options_.out / shard.file)},
                                      {"documents", shard.documents},
                                      {"text_bytes", shard.text_bytes}});
      }
      finish_manifest(std::move(manifest), written.report);
      return written.report;
    });
  }

 private:
  // Does `work` in the output folder unless it was done: alone there, and not in another run's.
  StageReport in_folder(const std::function<StageReport(const OrderedTree& plan)>& work) {
    fs::create_directories(options_.out);
    const auto lock = folder_lock(LOCK_EX);
    const OrderedTree plan = make_plan();
    if (fs::exists(manifest())) {
      compare(Json::parse_file(manifest().string()), plan);
      return finished();
    }
    begin(plan);
    remove_leftovers("shard-");
    const StageReport total = work(plan);
    fs::remove(plan_file());
    return total;
  }

  // Keeps processes that know nothing of one another from working on one folder.
  FileLock folder_lock(int kind) const {
    auto lock = FileLock::take(options_.out / ".lock", kind);
    if (!lock) {
      throw Error(Kind::Misused, options_.out.string() + ": another process is writing there",
                  "wait for it, or choose another --out");
    }
    return std::move(*lock);
  }

  void begin(const OrderedTree& plan) const {
    if (fs::exists(plan_file())) {
      compare(Json::parse_file(plan_file().string()), plan);
    } else {
      refuse_foreign_files();
      write_file(plan_file(), plan.dump(1));
    }
  }

  // What a killed run had not finished of shards whose name begins so: nobody else writes them.
  void remove_leftovers(const std::string& shard) const {
    std::vector<fs::path> leftovers;
    for (const auto& entry : fs::recursive_directory_iterator(options_.out)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with(shard) && name.find(".zst.tmp-") != name.npos) {
        leftovers.push_back(entry.path());
      }
    }
    for (const fs::path& file : leftovers) fs::remove(file);
  }

  fs::path manifest() const { return options_.out / "manifest.json"; }
  fs::path plan_file() const { return options_.out / ".plan.json"; }
  fs::path lock_file(size_t i) const { return options_.out / fmt::format(".shard-{:05}.lock", i); }
  fs::path state_file(size_t i) const { return options_.out / fmt::format(".shard-{:05}.json", i); }

  OrderedTree make_plan() const {
    OrderedTree plan;
    plan["stage"] = stage_.name();
    plan["version"] = stage_.version();
    plan["settings"] = stage_.settings();
    plan["inputs"] = OrderedTree::array();
    for (const fs::path& input : options_.inputs) {
      plan["inputs"].push_back({{"file", input.string()}, {"sha256", input_sha256(input)}});
    }
    return plan;
  }

  // Refuses to go on with what another run began.
  void compare(const Json& there, const OrderedTree& plan) const {
    const auto refuse = [&](const std::string& what) {
      throw Error(Kind::Misused, options_.out.string() + ": was made with other " + what,
                  "choose another --out, or remove the folder");
    };
    if (there.at("stage").string() != stage_.name()) {
      refuse("work: the stage " + there.at("stage").string());
    }
    if (there.at("version").integer() != stage_.version()) refuse("rules: the stage has changed");
    if (nlohmann::json(plan["settings"]) != there.at("settings").raw()) refuse("settings");
    const auto inputs = there.at("inputs").items();
    if (inputs.size() != options_.inputs.size()) refuse("inputs");
    for (size_t i = 0; i < inputs.size(); ++i) {
      const std::string file = plan["inputs"][i]["file"];
      if (inputs[i].at("file").string() != file) refuse("inputs: " + file + " is new");
      if (inputs[i].at("sha256").string() != plan["inputs"][i]["sha256"]) {
        refuse("inputs: " + file + " has changed");
      }
    }
  }

  void refuse_foreign_files() const {
    for (const auto& entry : fs::directory_iterator(options_.out)) {
      if (entry.path().filename().string().starts_with(".")) continue;
      throw Error(Kind::Misused, options_.out.string() + ": exists and is not empty",
                  "choose another --out, or remove the folder");
    }
  }

  StageReport finished() const {
    StageReport total;
    const Json counts = Json::parse_file(manifest().string()).at("counts");
    total.in = counts.at("in").integer();
    total.out = counts.at("out").integer();
    total.bad = counts.at("bad").integer();
    for (const auto& [rule, count] : counts.at("dropped").members()) {
      total.dropped[rule] = count.integer();
    }
    total.already_done = true;
    return total;
  }

  Done work(StageWorker& worker, RecordParser& parser, const LineBatch& batch) const {
    Done done;
    const std::string file = options_.inputs[batch.first.input].string();
    for_each_line(batch, [&](std::string_view line, const Place& place) {
      ++done.in;
      done.line_bytes += line.size();
      try {
        Record record(parser, line, stage_.text_field());
        const Verdict verdict = worker.process(record, place);
        if (verdict.keep) {
          ++done.out;
          done.kept_text_bytes += record.text().size();
          done.kept += record.json();
          done.kept += '\n';
        } else {
          record.set_raw("dropped_by",
                         fmt::format("{{\"stage\": {}, \"rule\": {}, \"value\": {}, "
                                     "\"threshold\": {}}}",
                                     json_string(stage_.name()), json_string(verdict.rule),
                                     json_number(verdict.value), json_number(verdict.threshold)));
          done.dropped.push_back({verdict.rule, record.json()});
        }
      } catch (const Error& error) {
        if (error.kind() != Kind::BadInput) throw;
        const auto* at = dynamic_cast<const BadRecord*>(&error);
        const std::string where = at != nullptr ? fmt::format("byte {}:", at->offset)
                                                : fmt::format("line {}", place.line);
        const std::string problem = fmt::format("{}: {} {}", file, where, error.what());
        if (options_.strict) throw_bad_input(problem);
        done.bad.push_back(fmt::format("{{\"file\": {}, \"{}\": {}, \"reason\": {}}}",
                                       json_string(file), at != nullptr ? "offset" : "line",
                                       at != nullptr ? at->offset : place.line,
                                       json_string(error.what())));
        if (done.first_bad.empty()) done.first_bad = problem;
      }
    });
    return done;
  }

  void one_input(size_t index) {
    BatchReader reader(options_, index, stage_.open(options_.inputs[index]));
    const auto make_worker = [&]() -> std::function<Done(LineBatch)> {
      auto worker = std::shared_ptr<StageWorker>(stage_.worker());
      auto parser = std::make_shared<RecordParser>();
      return
          [this, worker, parser](const LineBatch& batch) { return work(*worker, *parser, batch); };
    };

    const std::string shard = shard_name(index);
    ShardWriter kept(options_.out / shard);
    std::map<std::string, std::unique_ptr<ShardWriter>> others;
    const auto beside = [&](const std::string& folder, std::string_view line) {
      auto& writer = others[folder];
      if (writer == nullptr) {
        fs::create_directories(options_.out / folder);
        writer = std::make_unique<ShardWriter>(options_.out / folder / shard);
      }
      writer->write(line);
    };
    StageReport counts;
    uint64_t kept_text = 0;
    ordered_pipeline<LineBatch, Done>(
        options_.workers, [&] { return reader.next(); }, make_worker,
        [&](const Done& done) {
          counts.in += done.in;
          counts.out += done.out;
          counts.line_bytes += done.line_bytes;
          counts.bad += static_cast<int64_t>(done.bad.size());
          if (counts.first_bad.empty()) counts.first_bad = done.first_bad;
          kept_text += done.kept_text_bytes;
          if (!done.kept.empty()) {
            kept.write(std::string_view(done.kept).substr(0, done.kept.size() - 1));
          }
          for (const Dropped& one : done.dropped) {
            ++counts.dropped[one.rule];
            beside("dropped/" + one.rule, one.line);
          }
          for (const std::string& one : done.bad) beside("bad", one);
          if (options_.on_progress) options_.on_progress(done_bytes_ + reader.consumed_bytes());
        });
    for (auto& [folder, writer] : others) writer->commit();
    kept.commit();
    write_file(state_file(index),
               to_json(counts, sha256_file(options_.out / shard), kept_text).dump(1));
  }

  StageReport write_manifest(OrderedTree manifest) const {
    StageReport total;
    manifest["shards"] = OrderedTree::array();
    for (size_t i = 0; i < options_.inputs.size(); ++i) {
      const Json part = Json::parse_file(state_file(i).string());
      add(total, part);
      manifest["inputs"][i]["documents"] = part.at("in").integer();
      manifest["shards"].push_back({{"file", shard_name(i)},
                                    {"sha256", part.at("sha256").string()},
                                    {"documents", part.at("out").integer()},
                                    {"text_bytes", part.at("kept_text_bytes").integer()}});
    }
    finish_manifest(std::move(manifest), total);
    return total;
  }

  void finish_manifest(OrderedTree manifest, const StageReport& total) const {
    OrderedTree dropped = OrderedTree::object();
    for (const auto& [rule, count] : total.dropped) dropped[rule] = count;
    manifest["counts"] = {
        {"in", total.in}, {"out", total.out}, {"bad", total.bad}, {"dropped", dropped}};
    write_file(this->manifest(), manifest.dump(1) + "\n");
  }

  const Stage& stage_;
  const StageOptions& options_;
  uint64_t done_bytes_ = 0;
};

}  // namespace

struct BatchReader::State {
  State(const StageOptions& stage_options, size_t index, std::unique_ptr<RecordSource> own)
      : options(stage_options), input(index), records(std::move(own)) {
    if (records != nullptr) return;
    auto source = ByteSource::open(options.inputs[index]);
    progress = source.get();
    reader =
        std::make_unique<LineReader>(std::move(source), options.inputs[index].string(), kMaxLine);
  }
  const StageOptions& options;
  size_t input;
  const ByteSource* progress = nullptr;
  std::unique_ptr<LineReader> reader;
  std::unique_ptr<RecordSource> records;
  int64_t record_number = 0;
};

BatchReader::BatchReader(const StageOptions& options, size_t input,
                         std::unique_ptr<RecordSource> records)
    : state_(std::make_unique<State>(options, input, std::move(records))) {}
BatchReader::~BatchReader() = default;

std::optional<LineBatch> BatchReader::next() {
  if (state_->options.cancel != nullptr && *state_->options.cancel) {
    throw Error(Kind::Partial, "interrupted; whole shards are in " + state_->options.out.string(),
                "the same command goes on");
  }
  LineBatch batch;
  std::string line;
  if (state_->records != nullptr) {
    batch.first = {state_->input, state_->record_number + 1};
    while (batch.lines.size() < kBatchBytes && state_->records->next(line)) {
      ++state_->record_number;
      batch.lines.append(line) += '\n';
    }
    if (batch.lines.empty()) return std::nullopt;
    return batch;
  }
  batch.first = {state_->input, state_->reader->number() + 1};
  while (batch.lines.size() < kBatchBytes && state_->reader->next(line)) {
    const bool first = state_->reader->number() == 1;
    batch.lines.append(line, first && line.starts_with("\xEF\xBB\xBF") ? 3 : 0);
    batch.lines += '\n';
  }
  if (batch.lines.empty()) return std::nullopt;
  return batch;
}

uint64_t BatchReader::consumed_bytes() const noexcept {
  return state_->records != nullptr ? state_->records->consumed_bytes()
                                    : state_->progress->consumed_bytes();
}

void for_each_line(const LineBatch& batch,
                   const std::function<void(std::string_view line, const Place&)>& see) {
  Place place = batch.first;
  const std::string_view all = batch.lines;
  for (size_t at = 0; at < all.size(); ++place.line) {
    const size_t end = all.find('\n', at);
    const std::string_view line = all.substr(at, end - at);
    at = end + 1;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) see(line, place);
  }
}

StageReport run_stage(const Stage& stage, const StageOptions& options) {
  return Run(stage, options).run();
}

StageReport run_whole_stage(const Stage& stage, const StageOptions& options,
                            const std::function<WrittenShards()>& write) {
  return Run(stage, options).run_whole(write);
}

StageSettings::StageSettings(const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    const size_t at = word.find('=');
    if (at == std::string::npos || at == 0) {
      throw Error(Kind::Misused, fmt::format("--set {}: is no key=value", printable(word, 80)));
    }
    given_.emplace_back(word.substr(0, at), word.substr(at + 1));
  }
  taken_.resize(given_.size());
}

const std::string* StageSettings::find(std::string_view key) {
  known_.emplace_back(key);
  const std::string* value = nullptr;
  for (size_t i = 0; i < given_.size(); ++i) {  // the last one holds
    if (given_[i].first != key) continue;
    taken_[i] = true;
    value = &given_[i].second;
  }
  return value;
}

std::string StageSettings::text(std::string_view key, std::string fallback) {
  const std::string* value = find(key);
  return value == nullptr ? std::move(fallback) : *value;
}

double StageSettings::number(std::string_view key, double fallback, double least, double most) {
  const std::string* value = find(key);
  if (value == nullptr) return fallback;
  double out = 0;
  const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), out);
  if (error != std::errc() || end != value->data() + value->size() || !(out >= least) ||
      !(out <= most)) {
    throw Error(Kind::Misused, fmt::format("--set {}={}: is no number from {} to {}", key,
                                           printable(*value, 40), least, most));
  }
  return out;
}

int64_t StageSettings::integer(std::string_view key, int64_t fallback, int64_t least,
                               int64_t most) {
  const std::string* value = find(key);
  if (value == nullptr) return fallback;
  int64_t out = 0;
  const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), out);
  if (error != std::errc() || end != value->data() + value->size() || out < least || out > most) {
    throw Error(Kind::Misused, fmt::format("--set {}={}: is no whole number from {} to {}", key,
                                           printable(*value, 40), least, most));
  }
  return out;
}

bool StageSettings::flag(std::string_view key, bool fallback) {
  const std::string* value = find(key);
  if (value == nullptr) return fallback;
  if (*value == "on" || *value == "true") return true;
  if (*value == "off" || *value == "false") return false;
  throw Error(Kind::Misused,
              fmt::format("--set {}={}: is neither on nor off", key, printable(*value, 40)));
}

void StageSettings::finish() const {
  for (size_t i = 0; i < given_.size(); ++i) {
    if (taken_[i]) continue;
    const std::string near = nearest(given_[i].first, known_);
    throw Error(Kind::Misused,
                fmt::format("--set {}: no such setting", printable(given_[i].first, 80)),
                near.empty() ? "" : "did you mean " + near + "?");
  }
}

}  // namespace quern
