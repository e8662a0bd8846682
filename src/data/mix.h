// A training set out of sources: so much of each, shuffled together.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/pipeline/stage.h"

namespace quern {

struct MixSource {
  std::string name;
  std::vector<std::string> files;  // as expand_inputs() reads them
  double weight = 1;               // its part of the whole, against the other weights
  double epochs = 1;               // times that its documents may be used
  double cap = 0;                  // of its size in the mix; 0: none
};

struct MixPlan {
  std::vector<MixSource> sources;
  uint64_t seed = 0;
  double total = 0;                 // of the mix; 0: as much as all weights can be kept at
  double shard_bytes = 64'000'000;  // of records, about
  // Throws BadInput naming the file and the key. Relative files are looked for beside it.
  static MixPlan load(const fs::path& path);
};

// Parts of `total` by weight where no part is above its limit: what one can't take the others do.
std::vector<double> shares(const std::vector<double>& weights, const std::vector<double>& limits,
                           double total);

struct MixReport {
  struct Source {
    std::string name;
    int64_t documents = 0;  // in the mix, repeats counted
    double size = 0, available = 0;
    double epochs = 0;
  };
  std::vector<Source> sources;
  double size = 0;
  StageReport stage;
};

// Sizes are what `measure` says of a text: bytes, or tokens. Documents of a source are drawn without
// repetition until all are used, then again; each record gets the source's name where it has none.
// `settings` names what measures. The same bytes for the same inputs, settings and seed.
MixReport run_mix(const MixPlan& plan, const StageOptions& options, const std::string& measured,
                  const std::function<double(std::string_view text)>& measure);

}  // namespace quern
