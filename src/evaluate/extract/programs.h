// The Python that a reply holds: what completes a prompt, or a whole program.
#pragma once

#include <string>
#include <string_view>

namespace quern {

// --- base models, whose text goes on from the prompt

// The release's cuts: at the first blank line, at the first `def `. A body with either is lost.
std::string base_completion(std::string_view text);
// The better one: the body ends where a line is not indented.
std::string whole_body(std::string_view text);
// Whether the text has gone beyond what either keeps, so that no further token can change them.
bool both_complete(std::string_view text);

// --- chat models, who answer in prose and fences

// The release's search for the body of function `name`; what it finds completes the prompt.
std::string chat_completion(const std::string& reply, const std::string& name);
// The better one: the program up to where the tests begin.
std::string chat_program(const std::string& reply, const std::string& prompt,
                         const std::string& name);

}  // namespace quern
