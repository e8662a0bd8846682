// BLEU of a task's items: each verdict carries its counts, the corpus is their sum.
#pragma once

#include "evaluate/metrics/bleu.h"
#include "evaluate/task.h"

namespace quern {

nlohmann::ordered_json bleu_details(const BleuCounts& counts);
BleuCounts bleu_counts_of(const ItemVerdict& verdict);

// Corpus BLEU; its standard error is that of 1,000 resamplings of the segments.
Summary bleu_summary(std::span<const Judged> judged);

}  // namespace quern
