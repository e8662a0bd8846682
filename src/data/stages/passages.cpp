#include "data/stages/passages.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <list>
#include <mutex>

#include "core/error.h"
#include "data/stages/words.h"

namespace quern {
namespace {

constexpr size_t kParts = 64;      // of the hashes
constexpr size_t kBlocks = 256;    // of the documents
constexpr size_t kKeptBlocks = 4;  // in memory
constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

uint64_t times_mod_prime(uint64_t a, uint64_t b) noexcept {
  __extension__ using Wide = unsigned __int128;
  const Wide product = Wide{a} * b;
  const uint64_t sum =
      static_cast<uint64_t>(product & kPrime) + static_cast<uint64_t>(product >> 61);
  return sum >= kPrime ? sum - kPrime : sum;
}

uint64_t mixed(uint64_t x) noexcept {
  x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD;
  x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53;
  return x ^ (x >> 33);
}

struct Run {
  uint64_t hash;
  uint32_t check;     // of another hash
  uint32_t document;  // by its number
  uint32_t word;      // where the run begins
};
constexpr size_t kRunBytes = 20;

// Hashes of all runs of `length` words, by polynomials over the words' hashes: one modulo 2^61 - 1,
// one modulo 2^64.
void add_runs(std::span<const uint64_t> words, size_t length, uint64_t part,
              std::vector<Run>& out) {
  constexpr uint64_t kBase = 0x1F3A5B79D2C4E681 % kPrime, kOddBase = 0x9E3779B97F4A7C15;
  if (words.size() < length) return;
  uint64_t power = 1, odd_power = 1;  // of the word that leaves the run
  for (size_t i = 1; i < length; ++i) {
    power = times_mod_prime(power, kBase);
    odd_power *= kOddBase;
  }
  uint64_t hash = 0, other = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i >= length) {
      const uint64_t gone = words[i - length];
      hash = (hash + kPrime - times_mod_prime(gone % kPrime, power)) % kPrime;
      other -= gone * odd_power;
    }
    hash = (times_mod_prime(hash, kBase) + words[i] % kPrime) % kPrime;
    other = other * kOddBase + words[i];
    if (i + 1 < length) continue;
    out.push_back({mixed(hash ^ part), static_cast<uint32_t>(mixed(other) >> 32), 0,
                   static_cast<uint32_t>(i + 1 - length)});
  }
}

// A place of a run that stands in several: where it begins, and whether no other stands before it.
struct Mark {
  uint32_t document;
  uint32_t word;  // times two, and one for the first place
  auto operator<=>(const Mark&) const = default;
};

template <class Value>
void write_raw(std::ofstream& file, const Value& value) {
  file.write(reinterpret_cast<const char*>(&value), sizeof value);
}

std::vector<std::ofstream> open_all(const fs::path& folder, const char* name, size_t count) {
  std::vector<std::ofstream> files;
  for (size_t i = 0; i < count; ++i) {
    files.emplace_back(folder / fmt::format("{}-{}", name, i), std::ios::binary | std::ios::trunc);
  }
  return files;
}

void close_all(std::vector<std::ofstream>& files, const fs::path& folder) {
  for (std::ofstream& file : files) {
    file.close();
    if (!file) throw Error(Kind::NoResources, folder.string() + ": the disk is full");
  }
}

}  // namespace

struct RepeatedPassages::State {
  State(const PassageOptions& wanted, const StageOptions& stage, fs::path scratch)
      : options(wanted), folder(std::move(scratch)) {
    fs::create_directories(folder);
    scan(stage);
    mark();
  }
  ~State() {
    std::error_code ignored;
    fs::remove_all(folder, ignored);
  }

  // What a batch of documents has: its runs, and each document's place and last run.
  struct Found {
    std::vector<Run> runs;
    std::vector<std::pair<Place, size_t>> documents;
  };

  void scan(const StageOptions& stage) {
    bases.assign(stage.inputs.size(), 0);
    std::vector<std::ofstream> parts = open_all(folder, "runs", kParts);
    size_t input = 0;
    scan_records<Found>(
        stage, "text",
        [&]() -> std::function<void(Record&, const Place&, Found&)> {
          return [this, words = std::vector<uint64_t>()](Record& record, const Place& place,
                                                         Found& found) mutable {
            words.clear();
            shingle_words(record.text(), words);
            uint64_t part = 0;
            if (!options.within.empty()) {
              const std::string_view value = record.raw(options.within);
              part = XXH3_64bits(value.data(), value.size());
            }
            add_runs(words, static_cast<size_t>(options.words), part, found.runs);
            found.documents.emplace_back(place, found.runs.size());
          };
        },
        [&](const Found& found) {
          size_t next = 0;
          for (const auto& [place, end] : found.documents) {
            for (; input < place.input; ++input) bases[input + 1] = documents;
            const uint64_t number = bases[place.input] + static_cast<uint64_t>(place.line);
            if (number >= UINT32_MAX) {
              throw Error(Kind::NoResources,
                          "more than 4 billion documents are too many for one run",
                          "deduplicate parts of the corpus first");
            }
            documents = number;
            for (; next < end; ++next) {
              Run run = found.runs[next];
              run.document = static_cast<uint32_t>(number);
              std::ofstream& file = parts[run.hash % kParts];
              write_raw(file, run.hash);
              write_raw(file, run.check);
              write_raw(file, run.document);
              write_raw(file, run.word);
            }
          }
        });
    for (; input + 1 < bases.size(); ++input) bases[input + 1] = documents;
    close_all(parts, folder);
  }

  void mark() {
    std::vector<std::ofstream> blocks = open_all(folder, "marks", kBlocks);
    for (size_t part = 0; part < kParts; ++part) {
      const fs::path path = folder / fmt::format("runs-{}", part);
      std::vector<Run> runs = read_runs(path);
      fs::remove(path);
      std::ranges::sort(runs, [](const Run& a, const Run& b) {
        return std::tie(a.hash, a.check, a.document, a.word) <
               std::tie(b.hash, b.check, b.document, b.word);
      });
      for (size_t i = 0; i < runs.size();) {
        size_t end = i + 1;
        while (end < runs.size() && runs[end].hash == runs[i].hash &&
               runs[end].check == runs[i].check) {
          ++end;
        }
        for (size_t j = i; j < end && end - i > 1; ++j) {
          std::ofstream& file = blocks[block_of(runs[j].document)];
          write_raw(file, runs[j].document);
          write_raw(file, runs[j].word << 1 | (j == i ? 1U : 0U));
        }
        i = end;
      }
    }
    close_all(blocks, folder);
  }

  static std::vector<Run> read_runs(const fs::path& path) {
    const std::string bytes = read_file(path, uint64_t{1} << 40);
    std::vector<Run> runs(bytes.size() / kRunBytes);
    for (size_t i = 0; i < runs.size(); ++i) {
      const char* at = bytes.data() + i * kRunBytes;
      std::memcpy(&runs[i].hash, at, 8);
      std::memcpy(&runs[i].check, at + 8, 4);
      std::memcpy(&runs[i].document, at + 12, 4);
      std::memcpy(&runs[i].word, at + 16, 4);
    }
    return runs;
  }

  size_t block_of(uint32_t document) const {
    return static_cast<size_t>(uint64_t{document} * kBlocks / (documents + 1));
  }

  // Documents come nearly in their order, so that few blocks are wanted at a time.
  using Block = std::vector<Mark>;
  std::shared_ptr<const Block> block(size_t number) {
    const std::lock_guard lock(mutex);
    const auto known =
        std::ranges::find(kept, number, &std::pair<size_t, std::shared_ptr<Block>>::first);
    if (known != kept.end()) {
      kept.splice(kept.begin(), kept, known);
      return kept.front().second;
    }
    const std::string bytes =
        read_file(folder / fmt::format("marks-{}", number), uint64_t{1} << 40);
    auto out = std::make_shared<Block>(bytes.size() / sizeof(Mark));
    std::memcpy(out->data(), bytes.data(), out->size() * sizeof(Mark));
    std::ranges::sort(*out);
    kept.emplace_front(number, out);
    if (kept.size() > kKeptBlocks) kept.pop_back();
    return out;
  }

  PassageOptions options;
  fs::path folder;
  std::vector<uint64_t> bases;  // of each input: what a line's number is added to
  uint64_t documents = 0;       // the last one's number
  std::mutex mutex;
  std::list<std::pair<size_t, std::shared_ptr<Block>>> kept;  // newest first
};

RepeatedPassages::RepeatedPassages(const PassageOptions& options, const StageOptions& stage,
                                   const fs::path& scratch)
    : state_(std::make_unique<State>(options, stage, scratch)) {}
RepeatedPassages::~RepeatedPassages() = default;

RepeatedPassages::Cut RepeatedPassages::without_repeats(std::string_view text,
                                                        const Place& place) const {
  const auto document =
      static_cast<uint32_t>(state_->bases[place.input] + static_cast<uint64_t>(place.line));
  const auto block = state_->block(state_->block_of(document));
  const auto begin = std::ranges::lower_bound(*block, document, {}, &Mark::document);
  const auto end = std::ranges::upper_bound(*block, document, {}, &Mark::document);
  if (begin == end) return {.text = std::string(text)};
  std::vector<uint64_t> hashes;
  std::vector<WordPlace> places;
  shingle_words(text, hashes, &places);
  // A run may overlap itself: the words of a first place stay, whatever else holds them.
  const auto length = static_cast<size_t>(state_->options.words);
  std::vector<uint8_t> repeated(places.size()), first(places.size());
  for (auto mark = begin; mark != end; ++mark) {
    std::vector<uint8_t>& flags = (mark->word & 1) != 0 ? first : repeated;
    const size_t word = mark->word >> 1;
    for (size_t i = word; i < std::min(word + length, places.size()); ++i) flags[i] = 1;
  }
  Cut out;
  size_t from = 0;  // of the text: what is copied next
  bool left = false;
  for (size_t i = 0; i < places.size();) {
    size_t j = i;
    while (j < places.size() && repeated[j] != 0 && first[j] == 0) ++j;
    if (j == i) {
      left = true;
      ++i;
      continue;
    }
    // What stands behind a word up to the next one goes with it.
    out.text.append(text.substr(from, (i == 0 ? 0 : places[i].begin) - from));
    from = j == places.size() ? text.size() : places[j].begin;
    out.words += static_cast<int64_t>(j - i);
    i = j;
  }
  out.text.append(text.substr(from));
  out.nothing = !left;
  return out;
}

}  // namespace quern
