// A chain of stages, as a file names it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/file.h"

namespace quern {

struct PipelineStage {
  std::string name;                                           // of its output folder
  std::string use;                                            // the stage: filter, dedup, mix, ...
  std::vector<std::string> inputs;                            // files and folders
  std::vector<std::pair<std::string, std::string>> settings;  // options and --set, in their order
  std::string sources;  // of mix: the file that names its sources, made of [[stage.source]]
  std::vector<std::string> needs;  // stages whose output it reads
};

struct PipelineFile {
  std::vector<PipelineStage> stages;  // each behind those that it needs

  // `data`: where relative files are looked for, if not beside the file; `out`: where stages write,
  // each in a folder of its name. In every text {data}, {here} (the file's folder) and {NAME} (a
  // stage's folder) stand for these. Throws BadInput naming the file and the key: a stage that needs
  // itself, one that there is not, two of one name.
  static PipelineFile load(const fs::path& path, const fs::path& data, const fs::path& out);
};

}  // namespace quern
