// What the commands of the data pipeline's stages share: their options and their report.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/framework/command.h"
#include "data/pipeline/stage.h"

namespace quern::cli {

struct StageArguments {
  std::vector<std::string> inputs, settings;
  std::string out;
  int workers = 0;
  bool json = false, strict = false, share = false;

  // Whether processes that a launcher starts share the inputs, or the first one works alone.
  enum class Ranks : uint8_t { Share, FirstAlone } ranks = Ranks::Share;
  enum class Out : uint8_t { Required, MayBeAbsent };
  void declare(Command& command,
               const std::string& input_help = "Record files, folders of them, or patterns",
               Out output = Out::Required);
  // The options of a stage that runs over `files`.
  StageOptions options(std::vector<fs::path> files) const;
};

// What a stage has to tell beside its counts.
struct StageFacts {
  std::string lines;                                                     // for a reader
  std::function<void(nlohmann::ordered_json& out)> json = [](auto&) {};  // for --json
};
using StageWork = std::function<StageReport(StageOptions&)>;

// Runs `work` over the arguments' inputs with progress, Ctrl-C and a report at the end. `facts` is
// asked when the work is done.
void run_stage_command(const StageArguments& args, const std::string& title, const StageWork& work,
                       const std::function<StageFacts()>& facts = {});
// The same over files that are known already.
void run_stage_command(const StageArguments& args, StageOptions options, const std::string& title,
                       const StageWork& work, const std::function<StageFacts()>& facts = {});

}  // namespace quern::cli
