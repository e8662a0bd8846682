// The models that are there without a path: the one that comes with Quern and those in the user's
// cache, where scripts/get-model and `quern pull` put them. Their names stand wherever a model is
// asked for.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/file.h"

namespace quern::cli {

struct StoredModel {
  std::string name;  // "quern-mini", "SmolLM2-135M-Instruct", "OWNER/NAME" of a hub
  fs::path path;     // a checkpoint's folder or a GGUF file
};

// $XDG_CACHE_HOME/quern/models, or ~/.cache/quern/models; empty where neither variable is set.
fs::path model_cache();

// By name; a folder with several GGUF files has one entry for each, "NAME/FILE".
std::vector<StoredModel> stored_models();

// The path of a model that a user named: an existing path as it is; else of stored_models() the one
// of this name, or of the one whose last part it is. Throws BadInput for what is neither, with the
// nearest name, or how to get what looks like a hub's id.
std::string resolve_model(const std::string& name);
// The same for "NAME=MODEL".
std::string resolve_named_model(const std::string& text);

// The model for when none is named: SmolLM2-135M-Instruct, fetched by scripts/get-model where that
// is at hand, or else quern-mini with one line that says so. Throws Misused where this build has
// neither.
fs::path default_model();

}  // namespace quern::cli
