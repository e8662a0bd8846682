#include "data/stages/decontaminate.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <unordered_map>

#include "core/error.h"
#include "core/json.h"
#include "core/json_string.h"
#include "data/stages/words.h"
#include "formats/byte_source.h"

namespace quern {
namespace {

// An n-gram of a question. Equal n-grams of one question are one entry.
struct Entry {
  uint64_t hash;
  uint32_t question;
  uint32_t at;  // its first word
};

uint64_t hash_words(const uint64_t* words, size_t count) noexcept {
  return XXH3_64bits(words, count * sizeof(uint64_t));
}

// A passage in reports: long ones are cut in the middle of nothing but their end.
std::string shown(std::string_view text) {
  constexpr size_t kMost = 400;
  if (text.size() <= kMost) return std::string(text);
  size_t end = kMost;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "…";
}

}  // namespace

struct QuestionIndex::State {
  struct Words {
    std::vector<uint64_t> words;
    size_t ngram = 0;     // words of its n-grams; 0: too short
    size_t distinct = 0;  // n-grams
  };
  std::vector<Words> questions;
  std::vector<size_t> lengths;  // of n-grams that occur
  // Sorted by hash. first[h >> shift] is where the entries of such hashes begin.
  std::vector<Entry> entries;
  std::vector<uint32_t> first;
  int shift = 64;

  void build() {
    std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
      return std::tie(a.hash, a.question, a.at) < std::tie(b.hash, b.question, b.at);
    });
    const auto same = [](const Entry& a, const Entry& b) {
      return a.hash == b.hash && a.question == b.question;
    };
    entries.erase(std::unique(entries.begin(), entries.end(), same), entries.end());
    int bits = 8;
    while (bits < 24 && (size_t{1} << bits) < entries.size() * 2) ++bits;
    shift = 64 - bits;
    first.assign((size_t{1} << bits) + 1, 0);
    for (const Entry& entry : entries) ++first[(entry.hash >> shift) + 1];
    for (size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
    for (const Entry& entry : entries) ++questions[entry.question].distinct;
  }
};

QuestionIndex::QuestionIndex(std::vector<Question> questions, const DecontaminateOptions& options)
    : questions_(std::move(questions)), options_(options), state_(std::make_unique<State>()) {
  std::set<size_t> lengths;
  const auto ngram = static_cast<size_t>(options_.ngram);
  for (size_t i = 0; i < questions_.size(); ++i) {
    State::Words words;
    shingle_words(questions_[i].text, words.words);
    const size_t count = words.words.size();
    if (count >= ngram) {
      words.ngram = ngram;
    } else if (count >= static_cast<size_t>(options_.shortest)) {
      words.ngram = count;
    }
    if (words.ngram > 0) {
      lengths.insert(words.ngram);
      for (size_t at = 0; at + words.ngram <= count; ++at) {
        state_->entries.push_back({hash_words(words.words.data() + at, words.ngram),
                                   static_cast<uint32_t>(i), static_cast<uint32_t>(at)});
      }
    }
    state_->questions.push_back(std::move(words));
  }
  state_->lengths.assign(lengths.begin(), lengths.end());
  state_->build();
}

QuestionIndex::~QuestionIndex() = default;

bool QuestionIndex::too_short(size_t question) const {
  return state_->questions[question].ngram == 0;
}

std::vector<QuestionIndex::Hit> QuestionIndex::find(std::string_view text) const {
  std::vector<uint64_t> words;
  std::vector<WordPlace> places;
  shingle_words(text, words, &places);
  struct Match {
    uint32_t entry;
    uint32_t word;  // of the text
  };
  std::map<uint32_t, std::vector<Match>> found;  // by question
  const State& state = *state_;
  for (const size_t length : state.lengths) {
    for (size_t at = 0; at + length <= words.size(); ++at) {
      const uint64_t hash = hash_words(words.data() + at, length);
      const uint32_t end = state.first[(hash >> state.shift) + 1];
      for (uint32_t i = state.first[hash >> state.shift]; i < end; ++i) {
        const Entry& entry = state.entries[i];
        if (entry.hash != hash) continue;
        const State::Words& question = state.questions[entry.question];
        // The words decide, whatever the hash says.
        if (question.ngram != length ||
            std::memcmp(question.words.data() + entry.at, words.data() + at,
                        length * sizeof(uint64_t)) != 0) {
          continue;
        }
        found[entry.question].push_back({i, static_cast<uint32_t>(at)});
      }
    }
  }
  std::vector<Hit> out;
  for (auto& [number, matches] : found) {
    const State::Words& question = state.questions[number];
    std::set<uint32_t> distinct;
    for (const Match& match : matches) distinct.insert(match.entry);
    const double covered =
        static_cast<double>(distinct.size()) / static_cast<double>(question.distinct);
    if (covered < options_.cover) continue;
    Hit hit = {number, covered, 0, 0, {}};
    for (const Match& match : matches) {
      const size_t begin = places[match.word].begin;
      const size_t end = places[match.word + question.ngram - 1].end;
      if (!hit.passages.empty() && begin <= hit.passages.back().second) {
        hit.passages.back().second = std::max(hit.passages.back().second, end);
      } else {
        hit.passages.emplace_back(begin, end);
      }
    }
    const auto longest = std::ranges::max_element(
        hit.passages, {}, [](const auto& passage) { return passage.second - passage.first; });
    hit.begin = longest->first;
    hit.end = longest->second;
    out.push_back(std::move(hit));
  }
  return out;
}

namespace {

class DecontaminateStage final : public Stage {
 public:
  DecontaminateStage(const QuestionIndex& index, DecontaminateOptions options)
      : index_(index), options_(std::move(options)) {
    // The questions are an input like any other: others give another output.
    std::string all;
    for (const Question& question : index.questions()) {
      all += question.task + '\0' + question.id + '\0' + question.text + '\0';
    }
    questions_hash_ = sha256(all);
  }

  std::string_view name() const override { return "decontaminate"; }
  nlohmann::ordered_json settings() const override {
    return {{"cover", options_.cover},
            {"mask", options_.mask},
            {"words", options_.ngram},
            {"shortest", options_.shortest},
            {"text", options_.text},
            {"questions", index_.questions().size()},
            {"questions_sha256", questions_hash_}};
  }
  std::string text_field() const override { return options_.text; }
  std::unique_ptr<StageWorker> worker() const override {
    class Worker final : public StageWorker {
     public:
      explicit Worker(const DecontaminateStage& stage) : stage_(stage) {}
      Verdict process(Record& record, const Place&) override { return stage_.judge(record); }

     private:
      const DecontaminateStage& stage_;
    };
    return std::make_unique<Worker>(*this);
  }

 private:
  Verdict judge(Record& record) const {
    const std::string_view text = record.text();
    const auto hits = index_.find(text);
    if (hits.empty()) return {};
    std::string list = "[";
    double most = 0;
    std::vector<std::pair<size_t, size_t>> cuts;
    for (const QuestionIndex::Hit& hit : hits) {
      const Question& question = index_.questions()[hit.question];
      if (list.size() > 1) list += ", ";
      list += fmt::format("{{\"task\": {}, \"question\": {}, \"covered\": {}, \"text\": {}}}",
                          json_string(question.task), json_string(question.id),
                          json_number(hit.covered),
                          json_string(shown(text.substr(hit.begin, hit.end - hit.begin))));
      most = std::max(most, hit.covered);
      cuts.insert(cuts.end(), hit.passages.begin(), hit.passages.end());
    }
    record.set_raw("contamination", list + "]");
    if (!options_.mask) return {false, "decontaminate.cover", most, options_.cover};
    std::ranges::sort(cuts);
    std::string kept;
    size_t done = 0;
    for (const auto& [begin, end] : cuts) {
      if (begin > done) kept += text.substr(done, begin - done);
      done = std::max(done, end);
    }
    kept += text.substr(done);
    if (kept.find_first_not_of(" \t\r\n") == std::string::npos) {
      return {false, "decontaminate.cover", most, options_.cover};
    }
    record.set_text(std::move(kept));
    return {};
  }

  const QuestionIndex& index_;
  DecontaminateOptions options_;
  std::string questions_hash_;
};

}  // namespace

std::unique_ptr<Stage> make_decontaminate_stage(const QuestionIndex& index,
                                                const DecontaminateOptions& options) {
  return std::make_unique<DecontaminateStage>(index, options);
}

std::vector<TaskContamination> report_contamination(const QuestionIndex& index,
                                                    const fs::path& out) {
  std::map<std::string, TaskContamination> tasks;
  for (size_t i = 0; i < index.questions().size(); ++i) {
    TaskContamination& task = tasks[index.questions()[i].task];
    task.task = index.questions()[i].task;
    ++task.questions;
    task.too_short += index.too_short(i);
  }
  std::vector<fs::path> shards;
  for (const fs::path& folder : {out, out / "dropped/decontaminate.cover"}) {
    if (fs::is_directory(folder)) {
      for (const fs::path& file : expand_inputs({(folder / "shard-*").string()})) {
        shards.push_back(file);
      }
    }
  }
  AtomicFile report(out / "contamination.jsonl");
  std::set<std::pair<std::string, std::string>> questions;
  RecordParser parser;
  for (const fs::path& shard : shards) {
    LineReader lines(ByteSource::open(shard), shard.string(), uint64_t{128} << 20);
    for (std::string line; lines.next(line);) {
      if (line.find("\"contamination\": [") == std::string::npos) continue;
      const Record record(parser, line, "");
      const std::string_view list = record.raw("contamination");
      if (list.empty()) continue;
      std::set<std::string> here;
      const std::string id(record.raw("id").empty() ? "null" : record.raw("id"));
      for (const Json& hit : Json::parse(list, shard.string()).items()) {
        const std::string task = hit.at("task").string(), question = hit.at("question").string();
        report.write(fmt::format(
            "{{\"document\": {}, \"task\": {}, \"question\": {}, \"covered\": {}, \"text\": {}}}\n",
            id, json_string(task), json_string(question), json_number(hit.at("covered").number()),
            json_string(hit.at("text").string())));
        here.insert(task);
        if (questions.emplace(task, question).second) ++tasks[task].found;
      }
      for (const std::string& task : here) ++tasks[task].documents;
    }
  }
  report.commit();
  std::vector<TaskContamination> result;
  for (auto& [name, task] : tasks) result.push_back(std::move(task));
  return result;
}

}  // namespace quern
