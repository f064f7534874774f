// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/stream_options.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/ctl/command.h"
#include "shared/base/option_checks.h"
#include "shared/base/posix.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::ctl {
namespace {

using v1::GafRecipe;
using v1::GraphRecipe;

constexpr uint64_t kRecipeLimitBytes = 1 << 20;

// "options" at the head makes it a usage error: ExitCodeOf.
absl::Status BadOption(absl::string_view option, absl::string_view value, absl::string_view remedy) {
  return absl::InvalidArgumentError(absl::StrCat("options: --", option, " ", value, ": ", remedy));
}

// The value of an enumeration by its name in lower case, out of those given.
template <typename Enum>
absl::StatusOr<Enum> Parse(absl::string_view option, absl::string_view text,
                           const std::vector<std::pair<absl::string_view, Enum>>& values) {
  for (const auto& [name, value] : values) {
    if (absl::EqualsIgnoreCase(name, text)) return value;
  }
  const std::string names =
      absl::StrJoin(values, ", ", [](std::string* out, const auto& value) { absl::StrAppend(out, value.first); });
  return BadOption(option, text, absl::StrCat("must be one of ", names));
}

absl::StatusOr<GafRecipe::Range> ParseRange(absl::string_view option, absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> ends = absl::StrSplit(text, absl::MaxSplits(',', 1));
  GafRecipe::Range range;
  double low = 0;
  double high = 0;
  if (!absl::SimpleAtod(ends.first, &low) || !absl::SimpleAtod(ends.second, &high)) {
    return BadOption(option, text, "must be two numbers, LOW,HIGH");
  }
  range.set_low(low);
  range.set_high(high);
  return range;
}

absl::Status SetScale(const std::string& text, GafRecipe* gaf) {
  constexpr absl::string_view kFixed = "fixed:";
  if (absl::StartsWithIgnoreCase(text, kFixed)) {
    gaf->set_scale(GafRecipe::FIXED);
    STOKER_ASSIGN_OR_RETURN(*gaf->mutable_fixed_range(), ParseRange("scale", text.substr(kFixed.size())));
    return absl::OkStatus();
  }
  STOKER_ASSIGN_OR_RETURN(const GafRecipe::Scale scale, Parse<GafRecipe::Scale>("scale", text,
                                                                                {{"window", GafRecipe::WINDOW},
                                                                                 {"channel", GafRecipe::CHANNEL},
                                                                                 {"fixed:LO,HI", GafRecipe::FIXED},
                                                                                 {"none", GafRecipe::NONE}}));
  gaf->set_scale(scale);
  return absl::OkStatus();
}

absl::StatusOr<GafRecipe::Stats> ParseStats(const std::string& text) {
  return Parse<GafRecipe::Stats>("stats", text,
                                 {{"basic", GafRecipe::BASIC},
                                  {"comprehensive", GafRecipe::COMPREHENSIVE},
                                  {"correlation_focused", GafRecipe::CORRELATION_FOCUSED},
                                  {"signal_basic", GafRecipe::SIGNAL_BASIC},
                                  {"signal_comprehensive", GafRecipe::SIGNAL_COMPREHENSIVE},
                                  {"signal_extended", GafRecipe::SIGNAL_EXTENDED}});
}

absl::StatusOr<v1::DType> ParseImageDType(const std::string& text) {
  return Parse<v1::DType>("dtype", text,
                          {{"f32", v1::DTYPE_F32},
                           {"f16", v1::DTYPE_F16},
                           {"bf16", v1::DTYPE_BF16},
                           {"u8", v1::DTYPE_U8},
                           {"u16", v1::DTYPE_U16}});
}

bool HasGaf(const RecipeArguments& arguments) {
  return !arguments.fields.empty() || arguments.image_size != 0 || arguments.overlapping ||
         !arguments.sample_range.empty() || !arguments.scale.empty() || !arguments.series_scale.empty() ||
         !arguments.dtype.empty() || !arguments.stats.empty();
}

bool HasGraph(const RecipeArguments& arguments) {
  return !arguments.tensors.empty() || !arguments.line_graph.empty() || !arguments.rbf.empty() ||
         !arguments.float_dtype.empty() || !arguments.index_dtype.empty();
}

absl::StatusOr<GafRecipe> MakeGaf(const RecipeArguments& arguments) {
  GafRecipe gaf;
  for (const std::string& name : arguments.fields) {
    STOKER_ASSIGN_OR_RETURN(const GafRecipe::Field field,
                            Parse<GafRecipe::Field>("fields", absl::StripAsciiWhitespace(name),
                                                    {{"gasf", GafRecipe::GASF},
                                                     {"gadf", GafRecipe::GADF},
                                                     {"series", GafRecipe::SERIES},
                                                     {"stats", GafRecipe::STATS}}));
    gaf.add_fields(field);
  }
  gaf.set_image_size(arguments.image_size);
  gaf.set_overlapping(arguments.overlapping);
  if (!arguments.sample_range.empty()) {
    STOKER_ASSIGN_OR_RETURN(*gaf.mutable_sample_range(), ParseRange("sample-range", arguments.sample_range));
  }
  if (!arguments.scale.empty()) STOKER_RETURN_IF_ERROR(SetScale(arguments.scale, &gaf));
  if (!arguments.series_scale.empty()) {
    STOKER_ASSIGN_OR_RETURN(
        const GafRecipe::SeriesScale scale,
        Parse<GafRecipe::SeriesScale>("series-scale", arguments.series_scale,
                                      {{"none", GafRecipe::AS_READ}, {"channel", GafRecipe::TO_CHANNEL}}));
    gaf.set_series_scale(scale);
  }
  if (!arguments.dtype.empty()) {
    STOKER_ASSIGN_OR_RETURN(const v1::DType dtype, ParseImageDType(arguments.dtype));
    gaf.set_dtype(dtype);
  }
  if (!arguments.stats.empty()) {
    STOKER_ASSIGN_OR_RETURN(const GafRecipe::Stats stats, ParseStats(arguments.stats));
    gaf.set_stats(stats);
  }
  return gaf;
}

absl::StatusOr<GraphRecipe::Rbf> ParseRbf(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  uint32_t bins = 0;
  double low = 0;
  double high = 0;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &bins) || !absl::SimpleAtod(parts[1], &low) ||
      !absl::SimpleAtod(parts[2], &high)) {
    return BadOption("rbf", text, "must be three numbers, BINS,LOW,HIGH");
  }
  // A 0 would stand for its default.
  if (bins < 2 || !(low < high) || high == 0)
    return BadOption("rbf", text, "needs BINS from 2, LOW < HIGH, HIGH not 0");
  GraphRecipe::Rbf rbf;
  rbf.set_bins(bins);
  rbf.set_low(low);
  rbf.set_high(high);
  return rbf;
}

absl::StatusOr<GraphRecipe> MakeGraph(const RecipeArguments& arguments) {
  GraphRecipe graph;
  for (const std::string& name : arguments.tensors) {
    graph.add_tensors(std::string(absl::StripAsciiWhitespace(name)));
  }
  if (!arguments.line_graph.empty()) {
    STOKER_ASSIGN_OR_RETURN(const GraphRecipe::LineGraph kind,
                            Parse<GraphRecipe::LineGraph>("line-graph", arguments.line_graph,
                                                          {{"none", GraphRecipe::NO_LINE_GRAPH},
                                                           {"dgl", GraphRecipe::DGL},
                                                           {"torch", GraphRecipe::TORCH},
                                                           {"m3gnet", GraphRecipe::M3GNET}}));
    graph.set_line_graph(kind);
  }
  if (!arguments.rbf.empty()) {
    STOKER_ASSIGN_OR_RETURN(*graph.mutable_rbf(), ParseRbf(arguments.rbf));
  }
  if (!arguments.float_dtype.empty()) {
    STOKER_ASSIGN_OR_RETURN(
        const v1::DType dtype,
        Parse<v1::DType>("float", arguments.float_dtype,
                         {{"f32", v1::DTYPE_F32}, {"f16", v1::DTYPE_F16}, {"bf16", v1::DTYPE_BF16}}));
    graph.set_float_dtype(dtype);
  }
  if (!arguments.index_dtype.empty()) {
    STOKER_ASSIGN_OR_RETURN(const v1::DType dtype, Parse<v1::DType>("index", arguments.index_dtype,
                                                                    {{"i64", v1::DTYPE_I64}, {"i32", v1::DTYPE_I32}}));
    graph.set_index_dtype(dtype);
  }
  return graph;
}

absl::StatusOr<v1::Budget> ParseBudget(const std::vector<std::string>& limits) {
  v1::Budget budget;
  for (const std::string& limit : limits) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(limit, absl::MaxSplits('=', 1));
    uint64_t value = 0;
    const bool is_bytes = parts.first == "bytes";
    const absl::StatusOr<uint64_t> size = is_bytes ? ParseSize(parts.second) : absl::StatusOr<uint64_t>(0);
    if (is_bytes ? !size.ok() : !absl::SimpleAtoi(parts.second, &value)) {
      return BadOption("budget", limit, "must be NAME=NUMBER; bytes may have a unit, as in bytes=1GiB");
    }
    if (is_bytes) {
      budget.set_bytes(*size);
    } else if (parts.first == "graphs") {
      budget.set_graphs(value);
    } else if (parts.first == "nodes") {
      budget.set_nodes(value);
    } else if (parts.first == "edges") {
      budget.set_edges(value);
    } else if (parts.first == "triplets") {
      budget.set_triplets(value);
    } else {
      return BadOption("budget", limit, "must limit graphs, nodes, edges, triplets or bytes");
    }
  }
  return budget;
}

// Remembers the first error of a textproto, where TextFormat would print it.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber column, const std::string& message) override {
    if (text_.empty()) text_ = absl::StrCat(line + 1, ":", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

absl::StatusOr<v1::Recipe> ReadRecipe(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kRecipeLimitBytes));
  v1::Recipe recipe;
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text, &recipe)) {
    return absl::InvalidArgumentError(absl::StrCat("options: --recipe ", path, ":", error.text()));
  }
  return recipe;
}

}  // namespace

void AddRecipeOptions(CLI::App* command, RecipeArguments* arguments) {
  const std::string series = "Recipe of a time series: what a batch holds";
  const std::string crystals = "Recipe of crystals: what a batch holds";
  std::vector<CLI::Option*> of_series = {
      command->add_option("--fields", arguments->fields, "gasf, gadf, series, stats (default: gasf,gadf)")
          ->delimiter(','),
      command->add_option("--image-size", arguments->image_size, "Points of an image's side (default: the length)")
          ->check(AtLeastZero()),
      command->add_flag("--overlapping", arguments->overlapping, "Segments overlap where an image is smaller"),
      command->add_option("--sample-range", arguments->sample_range, "LOW,HIGH in [-1,1] (default: -1,1)"),
      command->add_option("--scale", arguments->scale, "window (default), channel, fixed:LO,HI or none"),
      command->add_option("--series-scale", arguments->series_scale,
                          "Of `series` and `stats`: none (default), channel"),
      command->add_option("--dtype", arguments->dtype, "Of the images: f32 (default), f16, bf16, u8 or u16"),
      command->add_option("--stats", arguments->stats,
                          "basic (default), comprehensive, correlation_focused, signal_basic, signal_comprehensive or "
                          "signal_extended"),
  };
  std::vector<CLI::Option*> of_crystals = {
      command
          ->add_option("--tensors", arguments->tensors,
                       "Names, as edge_index,distance (default: those of an ALIGNN batch)")
          ->delimiter(','),
      command->add_option("--line-graph", arguments->line_graph, "dgl (default), torch, m3gnet or none"),
      command->add_option("--rbf", arguments->rbf, "BINS,LOW,HIGH of `rbf` (default: 80,0,8)"),
      command->add_option("--float", arguments->float_dtype, "f32 (default), f16 or bf16"),
      command->add_option("--index", arguments->index_dtype, "i64 (default) or i32"),
  };
  CLI::Option* file = command->add_option("--recipe", arguments->file, "A file with the recipe as textproto, instead");
  for (CLI::Option* option : of_series) option->group(series)->excludes(file);
  for (CLI::Option* option : of_crystals) option->group(crystals)->excludes(file);
}

absl::StatusOr<v1::Recipe> MakeRecipe(const RecipeArguments& arguments) {
  if (!arguments.file.empty()) return ReadRecipe(arguments.file);
  v1::Recipe recipe;
  if (HasGaf(arguments) && HasGraph(arguments)) {
    return absl::InvalidArgumentError("options: some are for time series, some for crystals; --help says which");
  }
  if (HasGaf(arguments)) {
    STOKER_ASSIGN_OR_RETURN(*recipe.mutable_gaf(), MakeGaf(arguments));
  }
  if (HasGraph(arguments)) {
    STOKER_ASSIGN_OR_RETURN(*recipe.mutable_graph(), MakeGraph(arguments));
  }
  return recipe;
}

void AddPlanOptions(CLI::App* command, PlanArguments* arguments) {
  const std::string group = "Plan: in which order, and how cut";
  CLI::Option* const batch_size = command->add_option("--batch-size", arguments->batch_size, "Samples a batch")
                                      ->check(CLI::Range(1, 1048576))
                                      ->capture_default_str();
  const std::vector<CLI::Option*> options = {
      batch_size,
      command
          ->add_option("--budget", arguments->budget,
                       "Crystals: most in a batch, as graphs=64,nodes=2000,edges=30000,"
                       "triplets=400000,bytes=1GiB; one is enough")
          ->delimiter(',')
          ->excludes(batch_size),
      command->add_option("--oversize", arguments->oversize, "Samples over budget: fail (default), alone or skip"),
      command->add_flag("--shuffle", arguments->shuffle, "Another order each epoch, by the seed"),
      command->add_option("--seed", arguments->seed, "Of the shuffle (default: 0)")->check(AtLeastZero()),
      command->add_option("--rank", arguments->rank, "Of this reader (default: 0)")->check(AtLeastZero()),
      command->add_option("--world", arguments->world, "How many readers share the epoch (default: 1)")
          ->check(CLI::Range(1, 65536)),
      command->add_option("--tail", arguments->tail, "Samples that fill no batch: keep (default), drop or pad"),
      command->add_option("--from", arguments->from, "Where to begin, EPOCH:STEP (default: 0:0)"),
  };
  for (CLI::Option* option : options) option->group(group);
}

absl::StatusOr<v1::Plan> MakePlan(const PlanArguments& arguments) {
  v1::Plan plan;
  if (arguments.budget.empty()) {
    plan.set_batch_size(arguments.batch_size);
  } else {
    STOKER_ASSIGN_OR_RETURN(*plan.mutable_budget(), ParseBudget(arguments.budget));
  }
  if (!arguments.oversize.empty()) {
    STOKER_ASSIGN_OR_RETURN(
        const v1::OversizePolicy oversize,
        Parse<v1::OversizePolicy>(
            "oversize", arguments.oversize,
            {{"fail", v1::OVERSIZE_FAIL}, {"alone", v1::OVERSIZE_ALONE}, {"skip", v1::OVERSIZE_SKIP}}));
    plan.set_oversize(oversize);
  }
  plan.set_shuffle(arguments.shuffle);
  plan.set_seed(arguments.seed);
  plan.set_rank(arguments.rank);
  plan.set_world(arguments.world);
  if (!arguments.tail.empty()) {
    STOKER_ASSIGN_OR_RETURN(
        const v1::TailPolicy tail,
        Parse<v1::TailPolicy>("tail", arguments.tail, {{"keep", v1::KEEP}, {"drop", v1::DROP}, {"pad", v1::PAD}}));
    plan.set_tail(tail);
  }
  return plan;
}

absl::StatusOr<v1::Position> ParsePosition(absl::string_view text) {
  v1::Position position;
  if (text.empty()) return position;
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  uint64_t epoch = 0;
  uint64_t step = 0;
  if (!absl::SimpleAtoi(parts.first, &epoch) || !absl::SimpleAtoi(parts.second, &step)) {
    return BadOption("from", text, "must be EPOCH:STEP, two whole numbers");
  }
  position.set_epoch(epoch);
  position.set_step(step);
  return position;
}

void AddReadingOptions(CLI::App* command, ReadingArguments* arguments) {
  command->add_option("--prefetch", arguments->prefetch, "Batches asked for ahead (default: 2 or 4, by their size)")
      ->check(CLI::Range(0, 65536));
  const std::map<std::string, Transport> transports = {
      {"auto", Transport::kAuto}, {"shm", Transport::kShm}, {"inline", Transport::kInline}};
  command->add_option("--transport", arguments->transport, "auto (default), shm or inline")
      ->transform(OneOf(transports));
}

}  // namespace stoker::ctl
