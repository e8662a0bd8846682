// Tools that a user describes in a TOML file:
//
//   [tool.disk_usage]
//   description = "Size of a folder"
//   command = ["du", "-sh", "--", "{folder}"]   # an argument list; no shell reads it
//   parameters = {type = "object", properties = {folder = {type = "string"}}, required = ["folder"]}
//   side_effects = false        # true where it is left out: the user is asked first
//   timeout = 10                # seconds
//   max_output = 4096           # bytes of a result that the model sees
//   env = ["DU_TOKEN"]          # environment variables to pass on; their values are never shown
//
//   [tool.weather]              # one tool for each operation
//   openapi = "weather.json"
//   server = "https://..."      # in place of the file's
//   operations = ["forecast"]   # of the file; all where it is left out
//   headers = {Authorization = "Bearer ${WEATHER_KEY}"}
//   addresses = ["loopback"]    # kinds that may be reached beside public ones
//
//   [tool.search_folder]        # of the built-in tools, those that need to know something
//   folder = "notes"
//   [tool.web_search]
//   url = "https://.../search?q={query}&format=json"
#pragma once

#include <string>

#include "tools/tool.h"

namespace quern {

// Adds the file's tools; paths in it are relative to its folder. Throws BadInput naming the file and
// the field, also for a field that is not known.
void add_tools_file(const std::string& path, Toolbox& tools);

}  // namespace quern
