#include "data/extract/source_language.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>

#include "core/ascii.h"
#include "core/python_text.h"

namespace quern {
namespace {

using Table = std::unordered_map<std::string_view, std::string_view>;

constexpr size_t kLooked = 16'384;  // bytes of a file whose content decides

const Table& by_name() {
  static const Table kNames = {
      {"dockerfile", "dockerfile"},
      {"containerfile", "dockerfile"},
      {"makefile", "makefile"},
      {"gnumakefile", "makefile"},
      {"cmakelists.txt", "cmake"},
      {"rakefile", "ruby"},
      {"gemfile", "ruby"},
      {"podfile", "ruby"},
      {"vagrantfile", "ruby"},
      {"jenkinsfile", "groovy"},
      {"build", "starlark"},
      {"workspace", "starlark"},
      {"build.bazel", "starlark"},
      {"meson.build", "meson"},
      {"sconstruct", "python"},
      {"wscript", "python"},
      {"cargo.lock", "toml"},
      {"pipfile", "toml"},
      {"poetry.lock", "toml"},
      {"yarn.lock", "yaml"},
      {"go.mod", "go-module"},
      {"go.sum", "go-module"},
      {"package-lock.json", "json"},
      {"composer.lock", "json"},
      {".bashrc", "shell"},
      {".profile", "shell"},
      {".zshrc", "shell"},
      {".vimrc", "vim-script"},
      {".gitignore", "ignore-list"},
      {".clang-format", "yaml"},
      {"readme", "text"},
      {"license", "text"},
      {"copying", "text"},
      {"authors", "text"},
      {"changelog", "text"},
      {"news", "text"},
      {"notice", "text"},
  };
  return kNames;
}

const Table& by_ending() {
  static const Table kEndings = {
      {"c", "c"},
      {"cc", "cpp"},
      {"cpp", "cpp"},
      {"cxx", "cpp"},
      {"c++", "cpp"},
      {"hh", "cpp"},
      {"hpp", "cpp"},
      {"hxx", "cpp"},
      {"h++", "cpp"},
      {"ipp", "cpp"},
      {"tpp", "cpp"},
      {"inl", "cpp"},
      {"ixx", "cpp"},
      {"cppm", "cpp"},
      {"cu", "cuda"},
      {"cuh", "cuda"},
      {"cl", "opencl"},
      {"mm", "objective-cpp"},
      {"metal", "metal"},
      {"cs", "csharp"},
      {"csx", "csharp"},
      {"java", "java"},
      {"kt", "kotlin"},
      {"kts", "kotlin"},
      {"scala", "scala"},
      {"sc", "scala"},
      {"groovy", "groovy"},
      {"gradle", "groovy"},
      {"clj", "clojure"},
      {"cljs", "clojure"},
      {"go", "go"},
      {"rs", "rust"},
      {"swift", "swift"},
      {"dart", "dart"},
      {"zig", "zig"},
      {"nim", "nim"},
      {"d", "d"},
      {"py", "python"},
      {"pyi", "python"},
      {"pyw", "python"},
      {"pyx", "cython"},
      {"pxd", "cython"},
      {"pxi", "cython"},
      {"ipynb", "jupyter-notebook"},
      {"rb", "ruby"},
      {"rake", "ruby"},
      {"gemspec", "ruby"},
      {"php", "php"},
      {"phtml", "php"},
      {"js", "javascript"},
      {"mjs", "javascript"},
      {"cjs", "javascript"},
      {"jsx", "javascript"},
      {"tsx", "typescript"},
      {"mts", "typescript"},
      {"cts", "typescript"},
      {"vue", "vue"},
      {"svelte", "svelte"},
      {"coffee", "coffeescript"},
      {"elm", "elm"},
      {"html", "html"},
      {"htm", "html"},
      {"xhtml", "html"},
      {"css", "css"},
      {"scss", "scss"},
      {"sass", "sass"},
      {"less", "less"},
      {"xml", "xml"},
      {"xsd", "xml"},
      {"xsl", "xml"},
      {"xslt", "xml"},
      {"svg", "svg"},
      {"json", "json"},
      {"jsonl", "json"},
      {"geojson", "json"},
      {"json5", "json"},
      {"yml", "yaml"},
      {"yaml", "yaml"},
      {"toml", "toml"},
      {"ini", "ini"},
      {"cfg", "ini"},
      {"conf", "ini"},
      {"properties", "ini"},
      {"env", "shell"},
      {"sh", "shell"},
      {"bash", "shell"},
      {"zsh", "shell"},
      {"ksh", "shell"},
      {"fish", "fish"},
      {"ps1", "powershell"},
      {"psm1", "powershell"},
      {"bat", "batch"},
      {"cmd", "batch"},
      {"awk", "awk"},
      {"sed", "sed"},
      {"pm", "perl"},
      {"lua", "lua"},
      {"tcl", "tcl"},
      {"r", "r"},
      {"rmd", "r-markdown"},
      {"jl", "julia"},
      {"f", "fortran"},
      {"for", "fortran"},
      {"f77", "fortran"},
      {"f90", "fortran"},
      {"f95", "fortran"},
      {"f03", "fortran"},
      {"f08", "fortran"},
      {"ada", "ada"},
      {"adb", "ada"},
      {"ads", "ada"},
      {"pas", "pascal"},
      {"dpr", "pascal"},
      {"cob", "cobol"},
      {"cbl", "cobol"},
      {"hs", "haskell"},
      {"lhs", "haskell"},
      {"ml", "ocaml"},
      {"mli", "ocaml"},
      {"fs", "fsharp"},
      {"fsi", "fsharp"},
      {"fsx", "fsharp"},
      {"ex", "elixir"},
      {"exs", "elixir"},
      {"erl", "erlang"},
      {"hrl", "erlang"},
      {"lisp", "common-lisp"},
      {"lsp", "common-lisp"},
      {"scm", "scheme"},
      {"ss", "scheme"},
      {"rkt", "racket"},
      {"el", "emacs-lisp"},
      {"vim", "vim-script"},
      {"agda", "agda"},
      {"lean", "lean"},
      {"idr", "idris"},
      {"sql", "sql"},
      {"graphql", "graphql"},
      {"gql", "graphql"},
      {"proto", "protobuf"},
      {"thrift", "thrift"},
      {"tf", "terraform"},
      {"hcl", "hcl"},
      {"nix", "nix"},
      {"bzl", "starlark"},
      {"star", "starlark"},
      {"cmake", "cmake"},
      {"mk", "makefile"},
      {"mak", "makefile"},
      {"dockerfile", "dockerfile"},
      {"asm", "assembly"},
      {"s", "assembly"},
      {"nasm", "assembly"},
      {"ll", "llvm-ir"},
      {"vhd", "vhdl"},
      {"vhdl", "vhdl"},
      {"sv", "systemverilog"},
      {"svh", "systemverilog"},
      {"glsl", "glsl"},
      {"vert", "glsl"},
      {"frag", "glsl"},
      {"comp", "glsl"},
      {"hlsl", "hlsl"},
      {"wgsl", "wgsl"},
      {"sol", "solidity"},
      {"tex", "latex"},
      {"sty", "latex"},
      {"ltx", "latex"},
      {"bib", "bibtex"},
      {"md", "markdown"},
      {"markdown", "markdown"},
      {"mdx", "markdown"},
      {"rst", "restructuredtext"},
      {"adoc", "asciidoc"},
      {"org", "org"},
      {"txt", "text"},
      {"text", "text"},
      {"log", "text"},
      {"csv", "csv"},
      {"tsv", "csv"},
      {"diff", "diff"},
      {"patch", "diff"},
      {"po", "gettext"},
      {"pot", "gettext"},
      {"y", "yacc"},
      {"l", "lex"},
      {"g4", "antlr"},
      {"plx", "perl"},
      {"prolog", "prolog"},
      {"octave", "matlab"},
  };
  return kEndings;
}

const Table& by_interpreter() {
  static const Table kInterpreters = {
      {"sh", "shell"},          {"bash", "shell"},      {"dash", "shell"},
      {"zsh", "shell"},         {"ksh", "shell"},       {"ash", "shell"},
      {"fish", "fish"},         {"python", "python"},   {"pypy", "python"},
      {"perl", "perl"},         {"ruby", "ruby"},       {"node", "javascript"},
      {"nodejs", "javascript"}, {"deno", "typescript"}, {"ts-node", "typescript"},
      {"php", "php"},           {"lua", "lua"},         {"luajit", "lua"},
      {"rscript", "r"},         {"julia", "julia"},     {"awk", "awk"},
      {"gawk", "awk"},          {"sed", "sed"},         {"tclsh", "tcl"},
      {"wish", "tcl"},          {"make", "makefile"},   {"groovy", "groovy"},
      {"scala", "scala"},       {"runghc", "haskell"},  {"runhaskell", "haskell"},
      {"escript", "erlang"},    {"elixir", "elixir"},   {"swipl", "prolog"},
      {"octave", "matlab"},     {"guile", "scheme"},    {"racket", "racket"},
      {"sbcl", "common-lisp"},  {"pwsh", "powershell"}, {"ocaml", "ocaml"},
      {"swift", "swift"},       {"dart", "dart"},       {"crystal", "crystal"},
  };
  return kInterpreters;
}

std::string_view look_up(const Table& table, std::string_view key) {
  const auto found = table.find(key);
  return found == table.end() ? std::string_view() : found->second;
}

// The program that "#!/usr/bin/env -S python3 -u" names, without its version.
std::string interpreter_of(std::string_view text) {
  if (!text.starts_with("#!")) return {};
  const auto words = python::split(text.substr(2, text.find('\n') - 2));
  for (std::string_view word : words) {
    word = word.substr(word.rfind('/') + 1);  // npos + 1 is 0
    if (word == "env" || word.starts_with("-") || word.find('=') != word.npos) continue;
    std::string name = ascii_lower(word);
    while (!name.empty() && ((name.back() >= '0' && name.back() <= '9') || name.back() == '.')) {
      name.pop_back();
    }
    return name;
  }
  return {};
}

bool holds(std::string_view text, std::initializer_list<std::string_view> marks) {
  return std::ranges::any_of(marks, [&](std::string_view m) { return text.find(m) != text.npos; });
}

// Whether a line begins with one of the words, white space before it aside.
bool line_begins(std::string_view text, std::initializer_list<std::string_view> words) {
  for (const std::string_view line : python::split_at(text, "\n")) {
    const std::string_view bare = python::strip(line);
    for (const std::string_view word : words) {
      if (bare.starts_with(word)) return true;
    }
  }
  return false;
}

std::string_view header_language(std::string_view text) {
  if (line_begins(text, {"@interface", "@protocol", "#import ", "@class "})) return "objective-c";
  const bool cpp =
      line_begins(text, {"template <", "template<", "namespace ", "using ", "class ",
                         "public:", "private:", "protected:", "constexpr ", "#include <memory>",
                         "#include <string>", "#include <vector>", "#include <map>",
                         "#include <algorithm>", "#include <utility>", "#include <functional>",
                         "#include <cstdint>", "#include <cstddef>", "#include <iostream>"}) ||
      holds(text, {"std::", "::iterator", "virtual ", "noexcept", "operator=", "nullptr"});
  return cpp ? "cpp" : "c";
}

std::string_view m_language(std::string_view text) {
  if (line_begins(text, {"#import", "@interface", "@implementation", "@protocol", "@property",
                         "@end", "#include", "@import"})) {
    return "objective-c";
  }
  if (line_begins(text, {":- module", ":- interface"})) return "mercury";
  if (holds(text, {"BeginPackage[", "(* ::"})) return "mathematica";
  return "matlab";
}

std::string_view pl_language(std::string_view text) {
  if (line_begins(text, {":-", "?-"})) return "prolog";
  if (line_begins(text, {"use strict", "use warnings", "my ", "sub ", "package ", "use v5", "our ",
                         "#!/usr/bin/perl", "use "})) {
    return "perl";
  }
  // A clause: a head of lower case, and a full stop at its end.
  return holds(text, {" :-", "):-"}) ? "prolog" : "perl";
}

// Of endings that several languages share; empty for others.
std::string_view by_content(std::string_view ending, std::string_view text) {
  if (ending == "h") return header_language(text);
  if (ending == "m") return m_language(text);
  if (ending == "pl" || ending == "pro" || ending == "t") {
    if (ending == "t") return line_begins(text, {"function ", "local "}) ? "lua" : "perl";
    return ending == "pro" ? "prolog" : pl_language(text);
  }
  if (ending == "inc") {
    if (holds(text, {"<?php", "<?="})) return "php";
    if (line_begins(text, {"#include", "#define", "static ", "//"})) return "cpp";
    if (line_begins(text, {"SUMMARY", "require ", "inherit "})) return "bitbake";
    return {};
  }
  if (ending == "ts") {
    return text.substr(0, 200).find("<TS") != text.npos || text.starts_with("<?xml") ? "xml"
                                                                                     : "typescript";
  }
  if (ending == "v") {
    if (line_begins(text, {"module ", "endmodule", "`timescale", "always @"})) return "verilog";
    return line_begins(text, {"Theorem ", "Lemma ", "Require ", "Proof.", "Definition "}) ? "coq"
                                                                                          : "v";
  }
  if (ending == "cls") {
    return holds(text, {"\\ProvidesClass", "\\LoadClass", "\\newcommand"}) ? "latex" : "apex";
  }
  return {};
}

}  // namespace

std::string_view source_language(std::string_view path, std::string_view text) {
  const std::string name = ascii_lower(path.substr(path.rfind('/') + 1));
  const std::string_view looked = text.substr(0, kLooked);
  if (const auto known = look_up(by_name(), name); !known.empty()) return known;
  if (name.starts_with("dockerfile.") || name.starts_with("makefile.")) {
    return name.starts_with("d") ? "dockerfile" : "makefile";
  }
  const size_t dot = name.rfind('.');
  const std::string_view ending = dot == std::string::npos || dot == 0
                                      ? std::string_view()
                                      : std::string_view(name).substr(dot + 1);
  if (const auto told = by_content(ending, looked); !told.empty()) return told;
  if (const auto known = look_up(by_ending(), ending); !known.empty()) return known;
  if (const std::string program = interpreter_of(looked); !program.empty()) {
    if (const auto known = look_up(by_interpreter(), program); !known.empty()) return known;
  }
  if (looked.starts_with("<?php")) return "php";
  if (looked.starts_with("<?xml")) return "xml";
  if (ascii_lower(looked.substr(0, 15)).starts_with("<!doctype html")) return "html";
  return {};
}

}  // namespace quern
