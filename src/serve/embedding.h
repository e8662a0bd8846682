// /v1/embeddings: the mean of a prompt's last hidden states, of length 1.
#pragma once

#include <memory>

#include "core/json.h"
#include "serve/http.h"
#include "serve/models.h"

namespace quern::serve {

// Throws Overloaded, or BadInput; after that the answer goes through `exchange`.
void start_embedding(std::shared_ptr<Exchange> exchange, std::shared_ptr<LoadedModel> model,
                     const Json& body, double max_seconds);

}  // namespace quern::serve
