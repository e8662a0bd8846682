#include "data/stages/dedup.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "core/json_string.h"
#include "data/stages/passages.h"

namespace quern {
namespace {

// A document in the first pass, by its index in the order of the inputs.
struct Seen {
  Place place;
  float score = 0;
  uint32_t length = 0;
};

// A candidate of the second pass: what the choice of the survivor and the check need.
struct Candidate {
  std::string id;  // as JSON
  std::vector<uint64_t> shingles;
};

struct Removal {
  std::string keeper;
  double similarity;
};

struct PlaceHash {
  size_t operator()(const Place& place) const noexcept {
    return place.input * 0x9E3779B97F4A7C15 + static_cast<size_t>(place.line);
  }
};
using Removals = std::unordered_map<Place, Removal, PlaceHash>;

// Disjoint sets, by index of document.
class UnionFind {
 public:
  explicit UnionFind(size_t count) : parent_(count) {
    std::iota(parent_.begin(), parent_.end(), 0U);
  }
  uint32_t root(uint32_t i) noexcept {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void join(uint32_t a, uint32_t b) noexcept {
    a = root(a);
    b = root(b);
    if (a != b) parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<uint32_t> parent_;
};

// Pairs of a hash and a document on disk, a file for each band.
struct BandEntry {
  uint64_t hash;
  uint32_t document;
};

class BandFiles {
 public:
  BandFiles(const fs::path& folder, size_t bands) : folder_(folder) {
    fs::create_directories(folder);
    for (size_t i = 0; i < bands; ++i) {
      files_.emplace_back(path(i), std::ios::binary | std::ios::trunc);
    }
  }
  void add(size_t band, uint64_t hash, uint32_t document) {
    const BandEntry entry = {hash, document};
    files_[band].write(reinterpret_cast<const char*>(&entry.hash), sizeof(entry.hash));
    files_[band].write(reinterpret_cast<const char*>(&entry.document), sizeof(entry.document));
  }
  void close() {
    for (std::ofstream& file : files_) {
      file.close();
      if (!file) throw Error(Kind::NoResources, folder_.string() + ": the disk is full");
    }
  }
  // Entries of a band whose hash occurs more than once, sorted by hash, then document.
  std::vector<BandEntry> shared(size_t band) const {
    const std::string bytes = read_file(path(band), uint64_t{1} << 40);
    constexpr size_t kSize = sizeof(uint64_t) + sizeof(uint32_t);
    std::vector<BandEntry> entries(bytes.size() / kSize);
    for (size_t i = 0; i < entries.size(); ++i) {
      std::memcpy(&entries[i].hash, bytes.data() + i * kSize, sizeof(uint64_t));
      std::memcpy(&entries[i].document, bytes.data() + i * kSize + sizeof(uint64_t),
                  sizeof(uint32_t));
    }
    std::ranges::sort(entries, [](const BandEntry& a, const BandEntry& b) {
      return a.hash != b.hash ? a.hash < b.hash : a.document < b.document;
    });
    std::vector<BandEntry> out;
    for (size_t i = 0; i < entries.size(); ++i) {
      const bool before = i > 0 && entries[i - 1].hash == entries[i].hash;
      const bool after = i + 1 < entries.size() && entries[i + 1].hash == entries[i].hash;
      if (before || after) out.push_back(entries[i]);
    }
    return out;
  }

 private:
  fs::path path(size_t band) const { return folder_ / fmt::format("band-{}", band); }

  fs::path folder_;
  std::vector<std::ofstream> files_;
};

// Text with each run of white space as one blank, none at its ends.
std::string normalised(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (!space) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

double score_of(const Record& record, const std::string& name) {
  if (name.empty()) return 0;
  const std::string_view scores = record.raw("scores");
  if (scores.empty()) return 0;
  RecordParser parser;
  const std::string copy(scores);
  return Record(parser, copy, "").number(name).value_or(0);
}

// A record's id as JSON; one without is named by where it stands.
std::string id_of(const Record& record, const StageOptions& stage, const Place& place) {
  const std::string_view raw = record.raw("id");
  if (!raw.empty()) return std::string(raw);
  return json_string(fmt::format("{}:{}", stage.inputs[place.input].string(), place.line));
}

// Whole numbers in their order, other ids by their text.
bool id_less(const std::string& a, const std::string& b) {
  const auto is_number = [](const std::string& id) {
    return id.find_first_not_of("0123456789") == std::string::npos;
  };
  if (is_number(a) && is_number(b) && a.size() != b.size()) return a.size() < b.size();
  return a < b;
}

// A hash of the field that parts the corpus; it goes into every hash of the document.
uint64_t partition(const Record& record, const std::string& within) {
  if (within.empty()) return 0;
  const std::string_view value = record.raw(within);
  return XXH3_64bits(value.data(), value.size());
}

class Clusters {
 public:
  Clusters(const DedupOptions& options, const StageOptions& stage)
      : options_(options), stage_(stage), folder_(stage.out / ".dedup") {}
  ~Clusters() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  Clusters(const Clusters&) = delete;
  Clusters& operator=(const Clusters&) = delete;

  Removals find(const std::function<void(std::string_view)>& on_pass) {
    on_pass("signatures");
    hash_all();
    on_pass("candidates");
    collect_candidates();
    return choose();
  }

 private:
  size_t bands() const {
    return options_.method == DedupOptions::Method::Exact
               ? 1
               : static_cast<size_t>(options_.minhash.bands);
  }

  void hash_all() {
    struct Hashed {
      std::vector<Seen> seen;
      std::vector<uint64_t> hashes;  // [documents, bands]
    };
    BandFiles files(folder_, bands());
    const bool exact = options_.method == DedupOptions::Method::Exact;
    scan_records<Hashed>(
        stage_, "text",
        [&]() -> std::function<void(Record&, const Place&, Hashed&)> {
          auto hasher = std::make_shared<MinHasher>(options_.minhash);
          return [this, hasher, exact](Record& record, const Place& place, Hashed& out) {
            out.seen.push_back({place, static_cast<float>(score_of(record, options_.score)),
                                static_cast<uint32_t>(record.text().size())});
            const uint64_t part = partition(record, options_.within);
            if (exact) {
              const std::string text = normalised(record.text());
              const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
              out.hashes.push_back(hash.low64 ^ (hash.high64 * 0x9E3779B97F4A7C15) ^ part);
            } else {
              for (const uint64_t band : hasher->bands(record.text())) {
                out.hashes.push_back(band ^ part);
              }
            }
          };
        },
        [&](const Hashed& part) {
          for (size_t i = 0; i < part.seen.size(); ++i) {
            const auto document = static_cast<uint32_t>(seen_.size());
            seen_.push_back(part.seen[i]);
            for (size_t band = 0; band < bands(); ++band) {
              files.add(band, part.hashes[i * bands() + band], document);
            }
          }
        });
    files.close();
    for (size_t band = 0; band < bands(); ++band) {
      const std::vector<BandEntry> shared = files.shared(band);
      for (size_t i = 0; i < shared.size();) {
        std::vector<uint32_t> bucket;
        const uint64_t hash = shared[i].hash;
        for (; i < shared.size() && shared[i].hash == hash; ++i)
          bucket.push_back(shared[i].document);
        buckets_.push_back(std::move(bucket));
      }
    }
    std::ranges::sort(buckets_);
    buckets_.erase(std::unique(buckets_.begin(), buckets_.end()), buckets_.end());
  }

  void collect_candidates() {
    std::unordered_map<Place, uint32_t, PlaceHash> wanted;
    for (const auto& bucket : buckets_) {
      for (const uint32_t document : bucket) wanted.emplace(seen_[document].place, document);
    }
    using Found = std::vector<std::pair<uint32_t, Candidate>>;
    scan_records<Found>(
        stage_, "text",
        [&]() -> std::function<void(Record&, const Place&, Found&)> {
          auto hasher = std::make_shared<MinHasher>(options_.minhash);
          return [this, hasher, &wanted](Record& record, const Place& place, Found& out) {
            const auto found = wanted.find(place);
            if (found == wanted.end()) return;
            Candidate candidate = {id_of(record, stage_, place), {}};
            if (options_.method == DedupOptions::Method::MinHash) {
              hasher->bands(record.text());
              const auto shingles = hasher->shingles();
              candidate.shingles.assign(shingles.begin(), shingles.end());
            }
            out.emplace_back(found->second, std::move(candidate));
          };
        },
        [&](Found found) {
          for (auto& [document, candidate] : found) {
            candidates_.emplace(document, std::move(candidate));
          }
        });
  }

  double similarity(uint32_t a, uint32_t b) const {
    if (options_.method == DedupOptions::Method::Exact) return 1;
    return jaccard(candidates_.at(a).shingles, candidates_.at(b).shingles);
  }

  // Members of a bucket are compared with its first ones that are not alike themselves.
  void join_bucket(const std::vector<uint32_t>& bucket, UnionFind& sets) const {
    constexpr size_t kMostFirsts = 32;
    std::vector<uint32_t> firsts;
    for (const uint32_t document : bucket) {
      bool joined = false;
      for (const uint32_t first : firsts) {
        if (sets.root(first) == sets.root(document) || !options_.verify ||
            similarity(first, document) >= *options_.verify) {
          sets.join(first, document);
          joined = true;
          break;
        }
      }
      if (!joined && firsts.size() < kMostFirsts) firsts.push_back(document);
    }
  }

  Removals choose() const {
    UnionFind sets(seen_.size());
    for (const auto& bucket : buckets_) join_bucket(bucket, sets);
    std::map<uint32_t, std::vector<uint32_t>> clusters;
    for (const auto& [document, candidate] : candidates_) {
      clusters[sets.root(document)].push_back(document);
    }
    Removals out;
    std::unique_ptr<AtomicFile> report;
    if (!options_.clusters.empty()) report = std::make_unique<AtomicFile>(options_.clusters);
    for (auto& [root, members] : clusters) {
      if (members.size() < 2) continue;
      std::ranges::sort(members);
      const uint32_t keeper = *std::ranges::min_element(members, [&](uint32_t a, uint32_t b) {
        if (seen_[a].score != seen_[b].score) return seen_[a].score > seen_[b].score;
        if (seen_[a].length != seen_[b].length) return seen_[a].length > seen_[b].length;
        return id_less(candidates_.at(a).id, candidates_.at(b).id);
      });
      const std::string& keeper_id = candidates_.at(keeper).id;
      std::string dropped, similarities;
      for (const uint32_t member : members) {
        if (member == keeper) continue;
        const double like = similarity(keeper, member);
        out.emplace(seen_[member].place, Removal{keeper_id, like});
        dropped += (dropped.empty() ? "" : ", ") + candidates_.at(member).id;
        similarities += fmt::format("{}{:.4f}", similarities.empty() ? "" : ", ", like);
      }
      if (report != nullptr) {
        report->write(fmt::format("{{\"keep\": {}, \"drop\": [{}], \"jaccard\": [{}]}}\n",
                                  keeper_id, dropped, similarities));
      }
    }
    if (report != nullptr) report->commit();
    return out;
  }

  const DedupOptions& options_;
  const StageOptions& stage_;
  fs::path folder_;
  std::vector<Seen> seen_;
  std::vector<std::vector<uint32_t>> buckets_;
  std::unordered_map<uint32_t, Candidate> candidates_;
};

nlohmann::ordered_json settings_of(const DedupOptions& options) {
  constexpr const char* kMethods[] = {"exact", "minhash", "paragraph", "substring"};
  nlohmann::ordered_json out;
  out["method"] = kMethods[static_cast<int>(options.method)];
  if (options.method == DedupOptions::Method::MinHash) {
    out["bands"] = options.minhash.bands;
    out["rows"] = options.minhash.rows;
    out["words"] = options.minhash.shingle;
    out["seed"] = options.minhash.seed;
    out["verify"] = options.verify ? nlohmann::ordered_json(*options.verify) : "off";
  }
  if (options.method == DedupOptions::Method::Substring) out["words"] = options.passage;
  out["within"] = options.within;
  out["score"] = options.score;
  return out;
}

class DedupStage final : public Stage {
 public:
  DedupStage(const DedupOptions& options, const Removals& removals)
      : options_(options), removals_(removals) {}

  std::string_view name() const override { return "dedup"; }
  nlohmann::ordered_json settings() const override { return settings_of(options_); }
  std::unique_ptr<StageWorker> worker() const override {
    class Worker final : public StageWorker {
     public:
      explicit Worker(const DedupStage& stage) : stage_(stage) {}
      Verdict process(Record& record, const Place& place) override {
        const auto found = stage_.removals_.find(place);
        if (found == stage_.removals_.end()) return {};
        record.set_raw("duplicate_of", found->second.keeper);
        const bool exact = stage_.options_.method == DedupOptions::Method::Exact;
        return {false, exact ? "dedup.exact" : "dedup.minhash", found->second.similarity,
                exact ? 1 : stage_.options_.verify.value_or(0)};
      }

     private:
      const DedupStage& stage_;
    };
    return std::make_unique<Worker>(*this);
  }

 private:
  const DedupOptions& options_;
  const Removals& removals_;
};

// ---- Paragraphs.

std::vector<std::string_view> paragraphs(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

constexpr size_t kShortestParagraph = 40;  // bytes; shorter ones repeat by nature

uint64_t paragraph_hash(std::string_view paragraph, uint64_t part) {
  const std::string text = normalised(paragraph);
  return XXH3_64bits(text.data(), text.size()) ^ part;
}

struct FirstPlace {
  Place place;
  uint32_t paragraph;
};
using FirstPlaces = std::unordered_map<uint64_t, FirstPlace>;

class ParagraphStage final : public Stage {
 public:
  ParagraphStage(const DedupOptions& options, const FirstPlaces& firsts)
      : options_(options), firsts_(firsts) {}
  std::string_view name() const override { return "dedup"; }
  nlohmann::ordered_json settings() const override { return settings_of(options_); }
  std::unique_ptr<StageWorker> worker() const override {
    class Worker final : public StageWorker {
     public:
      explicit Worker(const ParagraphStage& stage) : stage_(stage) {}
      Verdict process(Record& record, const Place& place) override {
        const uint64_t part = partition(record, stage_.options_.within);
        std::string kept;
        uint32_t number = 0, cut = 0;
        const std::string_view text = record.text();
        for (size_t at = 0; at < text.size();) {
          const size_t end = std::min(text.find('\n', at), text.size());
          const std::string_view line = text.substr(at, end - at);
          at = end + 1;
          bool keep = true;
          if (!line.empty()) {
            if (line.size() >= kShortestParagraph) {
              const FirstPlace& first = stage_.firsts_.at(paragraph_hash(line, part));
              keep = first.place == place && first.paragraph == number;
            }
            ++number;
          }
          cut += !keep;
          if (keep) kept.append(line).append(end < text.size() ? "\n" : "");
        }
        if (cut == 0) return {};
        while (!kept.empty() && kept.back() == '\n') kept.pop_back();
        if (normalised(kept).empty()) {
          return {false, "dedup.paragraph", static_cast<double>(cut), 0};
        }
        record.set_text(std::move(kept));
        return {};
      }

     private:
      const ParagraphStage& stage_;
    };
    return std::make_unique<Worker>(*this);
  }

 private:
  const DedupOptions& options_;
  const FirstPlaces& firsts_;
};

FirstPlaces first_places(const DedupOptions& options, const StageOptions& stage) {
  using Found = std::vector<std::pair<uint64_t, FirstPlace>>;
  FirstPlaces out;
  scan_records<Found>(
      stage, "text",
      [&]() -> std::function<void(Record&, const Place&, Found&)> {
        return [&options](Record& record, const Place& place, Found& found) {
          const uint64_t part = partition(record, options.within);
          uint32_t number = 0;
          for (const std::string_view paragraph : paragraphs(record.text())) {
            if (paragraph.size() >= kShortestParagraph) {
              found.emplace_back(paragraph_hash(paragraph, part), FirstPlace{place, number});
            }
            ++number;
          }
        };
      },
      [&](const Found& found) { out.insert(found.begin(), found.end()); });
  return out;
}

// ---- Passages.

class SubstringStage final : public Stage {
 public:
  SubstringStage(const DedupOptions& options, const RepeatedPassages& passages)
      : options_(options), passages_(passages) {}
  std::string_view name() const override { return "dedup"; }
  nlohmann::ordered_json settings() const override { return settings_of(options_); }
  std::unique_ptr<StageWorker> worker() const override {
    class Worker final : public StageWorker {
     public:
      explicit Worker(const SubstringStage& stage) : stage_(stage) {}
      Verdict process(Record& record, const Place& place) override {
        RepeatedPassages::Cut cut = stage_.passages_.without_repeats(record.text(), place);
        if (cut.words == 0) return {};
        if (cut.nothing) {
          return {false, "dedup.substring", static_cast<double>(cut.words),
                  static_cast<double>(stage_.options_.passage)};
        }
        record.set_text(std::move(cut.text));
        record.set_raw("cut_words", fmt::format("{}", cut.words));
        return {};
      }

     private:
      const SubstringStage& stage_;
    };
    return std::make_unique<Worker>(*this);
  }

 private:
  const DedupOptions& options_;
  const RepeatedPassages& passages_;
};

}  // namespace

StageReport run_dedup(const DedupOptions& options, const StageOptions& stage,
                      const std::function<void(std::string_view pass)>& on_pass) {
  const bool by_paragraph = options.method == DedupOptions::Method::Paragraph;
  const bool by_passage = options.method == DedupOptions::Method::Substring;
  if ((by_paragraph || by_passage) && (!options.clusters.empty() || !options.score.empty())) {
    throw Error(Kind::Misused,
                fmt::format("the method {} takes no {}", by_paragraph ? "paragraph" : "substring",
                            options.clusters.empty() ? "score" : "file of clusters"),
                "it keeps what stands first; minhash and exact form clusters");
  }
  fs::create_directories(stage.out);
  if (by_paragraph) {
    on_pass("paragraphs");
    const FirstPlaces firsts = first_places(options, stage);
    on_pass("output");
    return run_stage(ParagraphStage(options, firsts), stage);
  }
  if (by_passage) {
    on_pass("passages");
    const RepeatedPassages passages({options.passage, options.within}, stage, stage.out / ".dedup");
    on_pass("output");
    return run_stage(SubstringStage(options, passages), stage);
  }
  Removals removals;
  {
    Clusters clusters(options, stage);
    removals = clusters.find(on_pass);
  }
  on_pass("output");
  return run_stage(DedupStage(options, removals), stage);
}

}  // namespace quern
