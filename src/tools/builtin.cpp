#include "tools/builtin.h"

namespace quern {

const std::vector<std::string>& builtin_tool_names() {
  static const std::vector<std::string> kNames = {"calculator", "convert",       "date",
                                                  "python",     "search_folder", "web_search"};
  return kNames;
}

}  // namespace quern
