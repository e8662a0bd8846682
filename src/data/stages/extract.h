// The extract stage: pages, web archives and texts in, documents out.
#pragma once

#include <memory>
#include <string>

#include "data/pipeline/stage.h"

namespace quern {

// Records with a page in `html_field` (a string; bytes in base64 where the name ends in _base64,
// their Content-Type in `content_type`); .html files, web archives (.warc, .wet), .txt and .md files.
// Empty: the fields html and html_base64 are looked for. repair=off leaves wrongly decoded text as it
// is (data/extract/mojibake.h).
//
// An input that is a folder gives a document for each of its page and text files, whose `id` is the
// path within it; with `source_trees` for each file of source code.
//
// Records with a `path` and a `content` (or `content_base64`) are source files: `lang` by
// name and content, `license` by their head or the tree's LICENSE. Those that are binary, vendored,
// generated or minified are dropped by source.* unless keep=generated,... names them.
std::unique_ptr<Stage> make_extract_stage(StageSettings& settings, const std::string& html_field,
                                          bool source_trees = false);

// Whether a file's name is a page's or text's: .html, .htm, .xhtml, .txt, .md, .markdown, also
// compressed.
bool is_page_file(const fs::path& path);
bool is_archive_file(const fs::path& path);  // .warc, .wet, .wat

}  // namespace quern
