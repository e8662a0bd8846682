// Corpus BLEU as sacrebleu 2.6 computes it (Papineni et al. 2002; Post 2018): four orders, one
// reference, case kept, exponential smoothing.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace quern {

enum class BleuTokenizer { Mteval13a, Chinese };
std::optional<BleuTokenizer> bleu_tokenizer_from_name(std::string_view name);  // "13a", "zh"
std::string_view name(BleuTokenizer tokenizer) noexcept;

// The segment with one space between tokens.
std::string bleu_tokenize(std::string_view segment, BleuTokenizer tokenizer);

// The counts of a segment. A corpus's BLEU comes from their sum.
struct BleuCounts {
  std::array<int64_t, 4> matches{}, totals{};  // of n-grams, by n - 1
  int64_t hypothesis_tokens = 0, reference_tokens = 0;
  BleuCounts& operator+=(const BleuCounts& other) noexcept;
};
BleuCounts bleu_counts(std::string_view hypothesis, std::string_view reference,
                       BleuTokenizer tokenizer);

struct BleuScore {
  double bleu = 0;                     // percent
  std::array<double, 4> precisions{};  // percent, smoothed
  double brevity_penalty = 1;
  BleuCounts counts;
};
BleuScore bleu_score(const BleuCounts& counts);

// `hypotheses` and `references` are as many.
BleuScore corpus_bleu(std::span<const std::string> hypotheses,
                      std::span<const std::string> references, BleuTokenizer tokenizer);

}  // namespace quern
