// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/expansion.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"
#include "shared/tensor/layout.h"

namespace stoker::gpu {
namespace {

using v1::GafRecipe;
using v1::GraphRecipe;
using Schema = v1::SessionReply::TensorSchema;

// A launch has at most 2^31 blocks, and an image up to 64 of them.
constexpr uint64_t kMaxWindows = uint64_t{1} << 25;
constexpr int kGafError = 0, kFeatureError = 1, kLineGraphError = 2;

absl::Status Invalid(absl::string_view what, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("expand on the device: ", what, ": ", reason));
}

const Schema* Find(const v1::SessionReply::Opened& info, absl::string_view name) {
  for (const Schema& tensor : info.schema()) {
    if (tensor.name() == name) return &tensor;
  }
  return nullptr;
}

// The tensor of that type and rank.
absl::StatusOr<const Schema*> Need(const v1::SessionReply::Opened& info, absl::string_view name, int rank,
                                   v1::DType dtype) {
  const Schema* const tensor = Find(info, name);
  if (tensor == nullptr) return Invalid(name, "is not in the batches, and what is asked for is made of it");
  if (tensor->shape_size() != rank || (dtype != v1::DTYPE_UNSPECIFIED && tensor->dtype() != dtype)) {
    return Invalid(name, absl::StrCat("is ", tensor::DTypeName(tensor->dtype()), " with ", tensor->shape_size(),
                                      " dimensions, must be ", tensor::DTypeName(dtype), " with ", rank));
  }
  return tensor;
}

// The product, or more than any memory has.
uint64_t Times(uint64_t a, uint64_t b) {
  uint64_t product;
  return __builtin_mul_overflow(a, b, &product) ? ~uint64_t{0} : product;
}

// Adds a tensor of `elements` to `bytes`; false when that is beyond all bounds.
bool AddBytes(uint64_t elements, v1::DType dtype, uint64_t* bytes) {
  uint64_t size, sum;
  if (__builtin_mul_overflow(elements, tensor::DTypeSize(dtype), &size) || size > uint64_t{1} << 60) return false;
  if (__builtin_add_overflow(*bytes, AlignUp(size, tensor::kTensorAlignment), &sum)) return false;
  *bytes = sum;
  return true;
}

absl::Status CheckRange(absl::string_view field, const GafRecipe::Range& range, double least, double most) {
  if (std::isfinite(range.high() - range.low()) && least <= range.low() && range.low() < range.high() &&
      range.high() <= most) {
    return absl::OkStatus();
  }
  return Invalid(field, absl::StrCat("[", range.low(), ", ", range.high(), "] must be finite, low < high, within [",
                                     least, ", ", most, "]"));
}

bool IsAsAnnounced(const DeviceTensor& tensor, const Schema& schema) {
  bool fits = tensor.dtype == schema.dtype() && tensor.shape.size() == static_cast<size_t>(schema.shape_size());
  for (int d = 0; fits && d < schema.shape_size(); ++d)
    fits = schema.shape(d) < 0 || tensor.shape[d] <= schema.shape(d);
  return fits;
}

absl::StatusOr<Element> FloatElement(v1::DType dtype) {
  if (dtype == v1::DTYPE_UNSPECIFIED) return Element::kF32;
  if (dtype == v1::DTYPE_F32 || dtype == v1::DTYPE_F16 || dtype == v1::DTYPE_BF16) return static_cast<Element>(dtype);
  return Invalid("recipe.graph.float_dtype", "choose F32, F16 or BF16");
}

}  // namespace

// One batch's plan: what is there, and what is added.
class Expansion::Maker {
 public:
  Maker(const Expansion& expansion, const Batch& batch, const Places& places, std::vector<DeviceTensor>* tensors,
        Program* program)
      : places(places), program(program), expansion_(expansion), batch_(batch), tensors_(tensors) {}

  // Null if there is none, or one that is not as it was announced.
  const DeviceTensor* Uploaded(absl::string_view name) const {
    for (const DeviceTensor& tensor : places.uploaded) {
      if (tensor.name != name) continue;
      const auto schema = std::find_if(expansion_.schema_.begin(), expansion_.schema_.end(),
                                       [name](const Schema& schema) { return schema.name() == name; });
      return schema != expansion_.schema_.end() && IsAsAnnounced(tensor, *schema) ? &tensor : nullptr;
    }
    return nullptr;
  }
  absl::StatusOr<const DeviceTensor*> Need(absl::string_view name) const {
    const DeviceTensor* const tensor = Uploaded(name);
    if (tensor == nullptr) return absl::DataLossError(absl::StrCat("the batch has no ", name, " as it was announced"));
    return tensor;
  }

  // Room for a tensor if it is asked for; null if not, or if it has no elements.
  absl::StatusOr<void*> Make(absl::string_view name, std::vector<int64_t> shape) {
    for (const Made& made : expansion_.made_) {
      if (made.name != name) continue;
      uint64_t bytes = tensor::DTypeSize(made.dtype), end = used_;
      for (const int64_t d : shape) bytes *= static_cast<uint64_t>(d);
      if (!AddBytes(bytes, v1::DTYPE_U8, &end) || end > expansion_.max_bytes()) {
        return absl::ResourceExhaustedError(
            absl::StrCat(name, " needs ", FormatSize(bytes), ", more than the ", FormatSize(expansion_.max_bytes()),
                         " that were set aside: the batch is larger than was announced"));
      }
      void* const data = places.made + used_;
      used_ = end;
      tensors_->push_back({made.name, made.dtype, std::move(shape), data, bytes});
      return bytes > 0 ? data : nullptr;
    }
    return nullptr;
  }

  void Add(const KernelCall& call) {
    if (call.blocks > 0) program->calls[program->count++] = call;
  }

  // Sum of a tensor of counts, none of which is negative.
  absl::StatusOr<int64_t> Sum(absl::string_view name) const {
    STOKER_ASSIGN_OR_RETURN(const RawTensor counts, batch_.GetRaw(name));
    int64_t sum = 0;
    const bool wide = counts.dtype == v1::DTYPE_I64;
    const size_t size = wide ? sizeof(int64_t) : sizeof(int32_t);
    for (size_t i = 0; i < counts.bytes.size() / size; ++i) {
      const int64_t count = wide ? reinterpret_cast<const int64_t*>(counts.bytes.data())[i]
                                 : reinterpret_cast<const int32_t*>(counts.bytes.data())[i];
      if (count < 0 || __builtin_add_overflow(sum, count, &sum)) {
        return absl::DataLossError(absl::StrCat(name, "[", i, "] is ", count));
      }
    }
    return sum;
  }

  const Places& places;
  Program* const program;

 private:
  const Expansion& expansion_;
  const Batch& batch_;
  std::vector<DeviceTensor>* const tensors_;
  uint64_t used_ = 0;
};

absl::StatusOr<Expansion> Expansion::Create(const ExpandOptions& options, const v1::SessionReply::Opened& info) {
  Expansion expansion;
  expansion.schema_.assign(info.schema().begin(), info.schema().end());
  if (options.recipe.has_gaf()) STOKER_RETURN_IF_ERROR(expansion.CreateGaf(options, info));
  if (options.recipe.has_graph()) STOKER_RETURN_IF_ERROR(expansion.CreateGraph(options, info));
  for (const Made& made : expansion.made_) {
    if (Find(info, made.name) != nullptr)
      return Invalid(made.name, "is in the batches already: ask for it in one place");
  }
  return expansion;
}

bool Expansion::Makes(absl::string_view name) const {
  return std::any_of(made_.begin(), made_.end(), [name](const Made& made) { return made.name == name; });
}

absl::Status Expansion::CreateGaf(const ExpandOptions& options, const v1::SessionReply::Opened& info) {
  const GafRecipe& recipe = options.recipe.gaf();
  STOKER_ASSIGN_OR_RETURN(const Schema* const series, Need(info, "series", 3, v1::DTYPE_F32));
  const int64_t points = series->shape(1), channels = series->shape(2);
  if (points < 1 || channels < 1) return Invalid("series", "batches differ in points or channels");
  const auto dtype = recipe.dtype() != v1::DTYPE_UNSPECIFIED ? recipe.dtype() : v1::DTYPE_F32;
  if (dtype < v1::DTYPE_F32 || dtype > v1::DTYPE_U16) {
    return Invalid("recipe.gaf.dtype", "choose F32, F16, BF16, U8 or U16");
  }
  for (const int field : recipe.fields()) {
    if (field != GafRecipe::GASF && field != GafRecipe::GADF)
      return Invalid("recipe.gaf.fields", "only GASF and GADF are made");
    const std::string name = field == GafRecipe::GASF ? "gasf" : "gadf";
    if (Makes(name)) return Invalid("recipe.gaf.fields", absl::StrCat(name, " is asked for twice"));
    made_.push_back({name, dtype});
  }
  if (recipe.fields().empty()) made_ = {{"gasf", dtype}, {"gadf", dtype}};

  gaf_.size = recipe.image_size() != 0 ? recipe.image_size() : points;
  if (gaf_.size < 2 || gaf_.size > std::min<int64_t>(points, 4096)) {
    return Invalid("recipe.gaf.image_size",
                   absl::StrCat(gaf_.size, " is outside [2, 4096] or above the ", points, " points"));
  }
  gaf_.overlapping = recipe.overlapping();
  gaf_.dtype = static_cast<Element>(dtype);
  gaf_.target_low = recipe.has_sample_range() ? recipe.sample_range().low() : -1.0;
  gaf_.target_high = recipe.has_sample_range() ? recipe.sample_range().high() : 1.0;
  if (recipe.has_sample_range())
    STOKER_RETURN_IF_ERROR(CheckRange("recipe.gaf.sample_range", recipe.sample_range(), -1, 1));

  STOKER_RETURN_IF_ERROR(ReadScale(options, channels));
  const uint64_t windows = Times(info.largest().samples(), channels);
  if (windows > kMaxWindows) return Invalid("series", absl::StrCat(windows, " windows a batch, at most ", kMaxWindows));
  for (const Made& made : made_) {
    if (!AddBytes(Times(windows, gaf_.size * gaf_.size), made.dtype, &max_bytes_))
      return Invalid(made.name, "is too large");
  }
  return absl::OkStatus();
}

absl::Status Expansion::ReadScale(const ExpandOptions& options, int64_t channels) {
  const GafRecipe& recipe = options.recipe.gaf();
  constexpr double kMost = std::numeric_limits<double>::max();
  if ((recipe.scale() == GafRecipe::FIXED) != recipe.has_fixed_range()) {
    return Invalid("recipe.gaf.fixed_range", "goes with scale FIXED, and with no other");
  }
  std::vector<GafRecipe::Range> ranges;
  if (recipe.scale() == GafRecipe::FIXED) ranges = {recipe.fixed_range()};
  if (recipe.scale() == GafRecipe::CHANNEL) ranges = options.channel_ranges;
  if (recipe.scale() == GafRecipe::CHANNEL && ranges.size() != static_cast<size_t>(channels)) {
    return Invalid("channel_ranges", absl::StrCat(ranges.size(), " are given, scale CHANNEL needs ", channels));
  }
  for (const GafRecipe::Range& range : ranges) {
    // A channel that stands still has a range without width, which is scaled as one that does.
    const bool still =
        recipe.scale() == GafRecipe::CHANNEL && range.low() == range.high() && std::isfinite(range.low());
    if (!still) STOKER_RETURN_IF_ERROR(CheckRange("range", range, -kMost, kMost));
    constants_.insert(constants_.end(), {range.low(), range.high()});
  }
  gaf_.one_range = recipe.scale() == GafRecipe::FIXED;
  switch (recipe.scale()) {
    case GafRecipe::SCALE_UNSPECIFIED:
    case GafRecipe::WINDOW:
      gaf_.scale = GafArgs::kWindow;
      break;
    case GafRecipe::CHANNEL:
    case GafRecipe::FIXED:
      gaf_.scale = GafArgs::kRange;
      break;
    case GafRecipe::NONE:
      gaf_.scale = GafArgs::kNone;
      break;
    default:
      return Invalid("recipe.gaf.scale", absl::StrCat("value ", int{recipe.scale()}, " is unknown"));
  }
  return absl::OkStatus();
}

absl::Status Expansion::CreateGraph(const ExpandOptions& options, const v1::SessionReply::Opened& info) {
  const GraphRecipe& recipe = options.recipe.graph();
  graph_ = true;
  STOKER_ASSIGN_OR_RETURN(float_dtype_, FloatElement(recipe.float_dtype()));
  v1::DType index = v1::DTYPE_I64;  // all of a batch's are of one type
  for (const char* name : {"num_nodes", "atomic_number", "edge_index"}) {
    if (const Schema* const indices = Find(info, name)) index = indices->dtype();
  }
  if (index != v1::DTYPE_I64 && index != v1::DTYPE_I32) return Invalid("atomic_number", "must be i64 or i32");
  if (recipe.index_dtype() != v1::DTYPE_UNSPECIFIED && recipe.index_dtype() != index) {
    return Invalid("recipe.graph.index_dtype", "must be that of the batches");
  }
  for (const std::string& name : recipe.tensors()) {
    const bool floats = name == "x" || name == "rbf" || name == "cos";
    if (!floats && name != "ptr" && name != "batch" && name != "lg_edge_index") {
      return Invalid(name, "is not made on the device: x, rbf, ptr, batch, lg_edge_index and cos are");
    }
    if (Makes(name)) return Invalid("recipe.graph.tensors", absl::StrCat(name, " is asked for twice"));
    made_.push_back({name, floats ? static_cast<v1::DType>(float_dtype_) : index});
  }
  line_graph_.index_dtype = static_cast<Element>(index);
  line_graph_.dtype = rbf_.dtype = float_dtype_;
  STOKER_RETURN_IF_ERROR(ReadLineGraph(options));
  STOKER_RETURN_IF_ERROR(ReadRbf(recipe.rbf()));
  return BoundGraph(info);
}

absl::Status Expansion::ReadLineGraph(const ExpandOptions& options) {
  const GraphRecipe::LineGraph kind = options.recipe.graph().line_graph();
  line_graph_.mode = kind == GraphRecipe::TORCH    ? LineGraphArgs::kTorch
                     : kind == GraphRecipe::M3GNET ? LineGraphArgs::kM3gnet
                                                   : LineGraphArgs::kDgl;
  if (!GraphRecipe::LineGraph_IsValid(kind) ||
      (kind == GraphRecipe::NO_LINE_GRAPH && (Makes("cos") || Makes("lg_edge_index")))) {
    return Invalid("recipe.graph.line_graph", "choose DGL, TORCH or M3GNET for a line graph");
  }
  line_graph_.cutoff = static_cast<float>(options.triplet_cutoff);
  return absl::OkStatus();
}

absl::Status Expansion::ReadRbf(const GraphRecipe::Rbf& rbf) {
  rbf_.bins = rbf.bins() != 0 ? rbf.bins() : 80;
  rbf_.low = rbf.low();
  const double high = rbf.high() != 0 ? rbf.high() : 8.0;
  if (rbf_.bins < 2 || rbf_.bins > 1024 || !std::isfinite(high - rbf_.low) || !(high > rbf_.low)) {
    return Invalid("recipe.graph.rbf", "needs bins in [2, 1024] and finite low < high");
  }
  rbf_.step = (high - rbf_.low) / static_cast<double>(rbf_.bins - 1);
  rbf_.gamma = rbf.gamma() != 0 ? rbf.gamma() : 1.0 / rbf_.step;
  if (!std::isfinite(rbf_.gamma) || !(rbf_.gamma > 0))
    return Invalid("recipe.graph.rbf.gamma", "must be finite and > 0");
  return absl::OkStatus();
}

// What each tensor needs is there, and how large it can be.
absl::Status Expansion::BoundGraph(const v1::SessionReply::Opened& info) {
  const auto index = static_cast<v1::DType>(line_graph_.index_dtype);
  const v1::SessionReply::LargestBatch& most = info.largest();
  for (const Made& made : made_) {
    uint64_t elements = 0;
    if (made.name == "rbf") {
      const bool distances = Find(info, "distance") != nullptr;
      STOKER_RETURN_IF_ERROR(Need(info, distances ? "distance" : "r", distances ? 1 : 2, v1::DTYPE_F32).status());
      elements = Times(most.edges(), rbf_.bins);
    } else if (made.name == "x") {
      STOKER_RETURN_IF_ERROR(Need(info, "atomic_number", 1, index).status());
      STOKER_ASSIGN_OR_RETURN(const Schema* const table, Need(info, "atom_features", 2, v1::DTYPE_F32));
      if (table->shape(1) < 1) return Invalid("atom_features", "has no features");
      elements = Times(most.nodes(), table->shape(1));
    } else if (made.name == "ptr" || made.name == "batch") {
      STOKER_RETURN_IF_ERROR(Need(info, "num_nodes", 1, index).status());
      STOKER_RETURN_IF_ERROR(Need(info, "atomic_number", 1, index).status());
      elements = made.name == "ptr" ? most.samples() + 1 : most.nodes();
    } else {
      STOKER_RETURN_IF_ERROR(Need(info, "r", 2, v1::DTYPE_F32).status());
      STOKER_RETURN_IF_ERROR(Need(info, "edge_index", 2, index).status());
      // As the daemon's, which decide whether an edge is within: the length of r may differ in its last bit.
      if (std::isfinite(line_graph_.cutoff)) STOKER_RETURN_IF_ERROR(Need(info, "distance", 1, v1::DTYPE_F32).status());
      for (const char* name : {"num_nodes", "num_edges", "num_triplets"}) {
        STOKER_RETURN_IF_ERROR(Need(info, name, 1, index).status());
      }
      elements = Times(most.triplets(), made.name == "cos" ? 1 : 2);
    }
    if (!AddBytes(elements, made.dtype, &max_bytes_)) return Invalid(made.name, "is too large");
  }
  return absl::OkStatus();
}

absl::Status Expansion::Plan(const Batch& batch, const Places& places, std::vector<DeviceTensor>* tensors,
                             Program* program) const {
  if (empty()) return absl::OkStatus();
  Maker maker(*this, batch, places, tensors, program);
  return graph_ ? PlanGraph(maker) : PlanGaf(maker);
}

absl::Status Expansion::PlanGaf(Maker& maker) const {
  STOKER_ASSIGN_OR_RETURN(const DeviceTensor* const series, maker.Need("series"));
  GafArgs args = gaf_;
  args.series = static_cast<const float*>(series->data);
  args.samples = series->shape[0];
  args.points = series->shape[1];
  args.channels = series->shape[2];
  if (args.points < args.size) {
    return absl::DataLossError(absl::StrCat("series has ", args.points, " points, fewer than images of ", args.size));
  }
  if (const DeviceTensor* const mask = maker.Uploaded("mask")) {
    if (mask->shape != std::vector<int64_t>{args.samples, args.points}) {
      return absl::DataLossError("mask has another shape than series");
    }
    args.mask = static_cast<const uint8_t*>(mask->data);
  }
  args.ranges = maker.places.constants;
  const std::vector<int64_t> shape = {args.samples, args.channels, args.size, args.size};
  STOKER_ASSIGN_OR_RETURN(args.gasf, maker.Make("gasf", shape));
  STOKER_ASSIGN_OR_RETURN(args.gadf, maker.Make("gadf", shape));
  maker.Add(CallOf(args, maker.places.errors + kGafError));
  return absl::OkStatus();
}

absl::Status Expansion::PlanGraph(Maker& maker) const {
  if (Makes("rbf")) {
    const DeviceTensor* const distance = maker.Uploaded("distance");
    STOKER_ASSIGN_OR_RETURN(const DeviceTensor* const edges,
                            distance != nullptr ? maker.Need("distance") : maker.Need("r"));
    RbfArgs args = rbf_;
    if (distance == nullptr && edges->shape[1] != 3) return absl::DataLossError("r has not 3 columns");
    (distance != nullptr ? args.distance : args.r) = static_cast<const float*>(edges->data);
    args.edges = edges->shape[0];
    STOKER_ASSIGN_OR_RETURN(args.rbf, maker.Make("rbf", {args.edges, args.bins}));
    maker.Add(CallOf(args));
  }
  if (Makes("x")) {
    STOKER_ASSIGN_OR_RETURN(const DeviceTensor* const numbers, maker.Need("atomic_number"));
    STOKER_ASSIGN_OR_RETURN(const DeviceTensor* const table, maker.Need("atom_features"));
    FeatureArgs args = {};
    args.rows = numbers->data;
    args.table = static_cast<const float*>(table->data);
    args.nodes = numbers->shape[0];
    args.table_rows = table->shape[0];
    args.features = table->shape[1];
    args.index_dtype = line_graph_.index_dtype;
    args.dtype = float_dtype_;
    STOKER_ASSIGN_OR_RETURN(args.x, maker.Make("x", {args.nodes, args.features}));
    maker.Add(CallOf(args, maker.places.errors + kFeatureError));
  }
  if (Makes("ptr") || Makes("batch")) {
    STOKER_ASSIGN_OR_RETURN(const DeviceTensor* const counts, maker.Need("num_nodes"));
    STOKER_ASSIGN_OR_RETURN(const DeviceTensor* const numbers, maker.Need("atomic_number"));
    BatchArgs args = {};
    args.num_nodes = counts->data;
    args.graphs = counts->shape[0];
    args.nodes = numbers->shape[0];
    args.index_dtype = line_graph_.index_dtype;
    STOKER_ASSIGN_OR_RETURN(const int64_t nodes, maker.Sum("num_nodes"));
    if (nodes != args.nodes)
      return absl::DataLossError(absl::StrCat("num_nodes add up to ", nodes, " of ", args.nodes));
    STOKER_ASSIGN_OR_RETURN(args.ptr, maker.Make("ptr", {args.graphs + 1}));
    STOKER_ASSIGN_OR_RETURN(args.batch, maker.Make("batch", {args.nodes}));
    maker.Add(CallOf(args));
  }
  if (Makes("lg_edge_index") || Makes("cos")) return PlanLineGraph(maker);
  return absl::OkStatus();
}

absl::Status Expansion::PlanLineGraph(Maker& maker) const {
  LineGraphArgs args = line_graph_;
  STOKER_ASSIGN_OR_RETURN(const DeviceTensor* const edge_index, maker.Need("edge_index"));
  STOKER_ASSIGN_OR_RETURN(const DeviceTensor* const r, maker.Need("r"));
  const DeviceTensor* counts[3];
  int64_t sums[3];
  const char* const names[] = {"num_nodes", "num_edges", "num_triplets"};
  for (int i = 0; i < 3; ++i) {
    STOKER_ASSIGN_OR_RETURN(counts[i], maker.Need(names[i]));
    STOKER_ASSIGN_OR_RETURN(sums[i], maker.Sum(names[i]));
    if (counts[i]->shape != counts[0]->shape)
      return absl::DataLossError("num_nodes, num_edges and num_triplets differ in size");
  }
  args.edges = r->shape[0];
  if (sums[1] != args.edges || edge_index->shape != std::vector<int64_t>{2, args.edges} || r->shape[1] != 3) {
    return absl::DataLossError(absl::StrCat("num_edges add up to ", sums[1], " of ", args.edges, " edges"));
  }
  args.edge_index = edge_index->data;
  args.r = static_cast<const float*>(r->data);
  if (std::isfinite(args.cutoff)) {
    STOKER_ASSIGN_OR_RETURN(const DeviceTensor* const distance, maker.Need("distance"));
    if (distance->shape != std::vector<int64_t>{args.edges})
      return absl::DataLossError("distance has not one of each edge");
    args.distance = static_cast<const float*>(distance->data);
  }
  args.num_nodes = counts[0]->data;
  args.num_edges = counts[1]->data;
  args.num_triplets = counts[2]->data;
  args.graphs = counts[0]->shape[0];
  args.triplets = sums[2];
  STOKER_ASSIGN_OR_RETURN(args.lg_edge_index, maker.Make("lg_edge_index", {2, args.triplets}));
  STOKER_ASSIGN_OR_RETURN(args.cosines, maker.Make("cos", {args.triplets}));
  maker.Add(CallOf(args, maker.places.errors + kLineGraphError));
  return absl::OkStatus();
}

absl::Status Expansion::CheckErrors(const uint32_t* errors) const {
  if (errors[kGafError] != kNoError) {
    return absl::InvalidArgumentError(
        absl::StrCat("sample ", errors[kGafError],
                     " of the batch: no image of values that are not finite, or, with scale NONE, outside "
                     "[-1, 1]"));
  }
  if (errors[kFeatureError] != kNoError) {
    return absl::InvalidArgumentError(
        absl::StrCat("node ", errors[kFeatureError], " of the batch: atom_features has no row for its atomic number"));
  }
  if (errors[kLineGraphError] != kNoError) {
    return absl::DataLossError(
        absl::StrCat("graph ", errors[kLineGraphError],
                     " of the batch: its edges give another number of triplets than num_triplets"));
  }
  return absl::OkStatus();
}

}  // namespace stoker::gpu
