// general.sampling.*: how a GGUF file's authors mean it to be sampled, in the keys that llama.cpp
// reads and its converter writes.
#pragma once

#include "formats/generation_config.h"
#include "formats/gguf.h"
#include "formats/gguf_writer.h"

namespace quern {

// Keys of samplers that Quern lacks (XTC, Mirostat, an order of samplers, a bounded window of
// penalties) are warned of by name unless their value turns them off. Throws BadInput naming the
// key.
GenerationConfig read_gguf_sampling(const GgufFile& file);

// Fields that are empty, or have no key, are left out; do_sample false is a temperature of 0.
void add_gguf_sampling(GgufWriter& out, const GenerationConfig& config);

}  // namespace quern
