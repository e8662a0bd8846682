// The datasets of a run: opened, or packed from documents first.
#pragma once

#include <memory>
#include <vector>

#include "data/dataset.h"
#include "text/tokenizer.h"
#include "train/run_config.h"

namespace quern {

struct RunData {
  std::vector<std::unique_ptr<Dataset>> train, valid;
  // Conversations that were shortened or left out: a line for each source and problem.
  std::vector<std::string> notes;
};

// Sources that name documents are packed into `run`/data/ once, and read from there after. Throws
// BadInput for a dataset that was made with another tokenizer. `progress` is told what is packed
// and may throw to stop.
RunData open_run_data(const RunConfig& config, const Tokenizer& tokenizer, const fs::path& run,
                      ThreadPool& pool, const std::function<void(const std::string&)>& progress);

// Throws BadInput where a source could not be opened: no such dataset or file, a dataset of another
// tokenizer. Reads no documents.
void check_run_source(const RunSource& source, const Tokenizer& tokenizer);

}  // namespace quern
