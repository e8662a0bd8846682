#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "core/rng.h"

namespace quern {

int64_t permuted(int64_t index, int64_t count, uint64_t key, uint64_t stream) noexcept {
  const int half =
      std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(count - 1)) + 1) / 2);
  const uint64_t mask = (uint64_t{1} << half) - 1;
  auto value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> half, right = value & mask;
    for (uint32_t round = 0; round < 4; ++round) {
      const auto words = philox(
          {static_cast<uint32_t>(right), static_cast<uint32_t>(right >> 32),
           static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32) ^ (round << 28)},
          {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
      const uint64_t mixed = (static_cast<uint64_t>(words[0]) << 32 | words[1]) & mask;
      left ^= mixed;
      std::swap(left, right);
    }
    value = left << half | right;
  } while (value >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(value);
}

Packing parse_packing(std::string_view name, std::string_view source) {
  if (name == "stream") return Packing::Stream;
  if (name == "documents") return Packing::Documents;
  throw_bad_input(
      fmt::format("{}: is '{}', expected stream or documents", source, printable(name, 40)));
}

Loader::Loader(std::vector<LoaderSource> sources, const LoaderOptions& options)
    : options_(options), drawn_(sources.size(), 0) {
  double total = 0;
  for (const LoaderSource& source : sources) total += source.weight;
  for (const LoaderSource& source : sources) {
    const Dataset& data = *source.dataset;
    Source own{&data, source.weight / total, {}};
    if (options.packing != Packing::Stream) {
      const auto& begins = data.documents();
      for (size_t i = 0; i < begins.size(); ++i) {
        const int64_t end = i + 1 < begins.size() ? begins[i + 1] : data.tokens();
        Window* last = own.windows.empty() ? nullptr : &own.windows.back();
        if (options.packing == Packing::Documents && last != nullptr &&
            end - last->first <= options.seq) {
          last->tokens = end - last->first;
        } else {
          own.windows.push_back({begins[i], std::min(end - begins[i], options.seq)});
        }
      }
    } else if (data.tokens() < 2 * options.seq) {
      throw_bad_input(fmt::format("{}: holds {} tokens, fewer than two sequences of {}",
                                  data.folder().string(), data.tokens(), options.seq),
                      "take a smaller seq, or more data");
    }
    sources_.push_back(std::move(own));
  }
}

int64_t Loader::windows(size_t source) const noexcept {
  const Source& own = sources_[source];
  if (options_.packing != Packing::Stream) return static_cast<int64_t>(own.windows.size());
  return own.dataset->tokens() / options_.seq - 1;  // one fewer leaves room to shift the cut
}

double Loader::epochs(size_t source) const noexcept {
  return static_cast<double>(drawn_[source]) / static_cast<double>(windows(source));
}

Loader::Window Loader::window(size_t source, int64_t drawn) const {
  const int64_t count = windows(source), epoch = drawn / count;
  const uint64_t stream = static_cast<uint64_t>(epoch) << 16 | source;
  if (options_.packing == Packing::Pairs) {
    const int64_t pair = permuted(drawn % count / 2, count / 2, options_.seed, stream);
    return sources_[source].windows[static_cast<size_t>(2 * pair + drawn % 2)];
  }
  const int64_t index = permuted(drawn % count, count, options_.seed, stream);
  if (options_.packing == Packing::Documents) {
    return sources_[source].windows[static_cast<size_t>(index)];
  }
  const auto spare =
      static_cast<uint64_t>(sources_[source].dataset->tokens() - count * options_.seq);
  const auto shift = static_cast<int64_t>(Rng(options_.seed, stream).below(spare + 1));
  return {shift + index * options_.seq, options_.seq};
}

size_t Loader::next_source() const noexcept {
  for (size_t i = 0; options_.packing == Packing::Pairs && i < drawn_.size(); ++i) {
    if (drawn_[i] % 2 == 1) return i;  // the second of a pair
  }
  double all = 1;
  for (const int64_t drawn : drawn_) all += static_cast<double>(drawn);
  size_t best = 0;
  double furthest = -1e300;
  for (size_t i = 0; i < sources_.size(); ++i) {
    const double behind = sources_[i].share * all - static_cast<double>(drawn_[i]);
    if (behind > furthest) {
      furthest = behind;
      best = i;
    }
  }
  return best;
}

void Loader::next(std::span<int32_t> ids, std::span<int32_t> labels, std::span<int32_t> starts) {
  const size_t source = next_source();
  const Window taken = window(source, drawn_[source]++);
  const Dataset& data = *sources_[source].dataset;
  const auto count = static_cast<size_t>(taken.tokens);
  data.read(taken.first, ids.first(count), labels.first(count));
  std::fill(ids.begin() + static_cast<ptrdiff_t>(count), ids.end(), 0);
  std::fill(labels.begin() + static_cast<ptrdiff_t>(count), labels.end(), -100);
  std::fill(starts.begin(), starts.end(), 0);
  if (!options_.isolate_documents) return;
  const auto& begins = data.documents();
  for (auto next = std::upper_bound(begins.begin(), begins.end(), taken.first);
       next != begins.end() && *next < taken.first + taken.tokens; ++next) {
    const auto at = static_cast<int32_t>(*next - taken.first);
    std::fill(starts.begin() + at, starts.end(), at);
    // The logits at a document's end must not be judged by the next document's first token.
    labels[static_cast<size_t>(at)] = -100;
  }
}

void Loader::seek(const LoaderPosition& position) {
  if (position.size() != sources_.size()) {
    throw_bad_input(fmt::format("the data position names {} sources, the run has {}",
                                position.size(), sources_.size()),
                    "a run is resumed with the sources that it was begun with");
  }
  drawn_ = position;
}

}  // namespace quern
