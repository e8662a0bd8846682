// Texts with labels, out of record files.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "data/classify/train_linear.h"

namespace quern {

// Calls `see` with each record's text and label, a string; numbers and booleans as "1" and "0".
// Throws BadInput naming file and line for a record without either.
void for_each_labelled(const std::vector<fs::path>& files, const std::string& text_field,
                       const std::string& label_field,
                       const std::function<void(std::string text, std::string label)>& see);

// Calls `see` with each record's text.
void for_each_text(const std::vector<fs::path>& files, const std::string& text_field,
                   const std::function<void(std::string_view text)>& see);

// Whether a label means yes: 1, true, yes, good, positive; no: 0, false, no, bad, negative, -1. With
// `positive`, that word alone does. Throws BadInput for any other.
int binary_label(const std::string& label, const std::string& positive);

}  // namespace quern
