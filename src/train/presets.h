// Settings of whole training runs by name.
#pragma once

#include <string_view>
#include <vector>

namespace quern {

// A run's settings as TOML, to be completed by data and tokenizer. Throws BadInput for an unknown
// name, naming `source`.
std::string_view run_preset(std::string_view name, std::string_view source);
std::vector<std::string_view> run_preset_names();

}  // namespace quern
