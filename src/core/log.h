// The program's log, on stderr through spdlog. Library code says what a user should know and no
// more; results never go here.
#pragma once

#include <string>
#include <string_view>

namespace quern::log {

enum class Level { Debug, Info, Warning, Error, Off };

void set_level(Level level);
void debug(std::string_view message);
void info(std::string_view message);
void warning(std::string_view message);
void error(std::string_view message);

}  // namespace quern::log
