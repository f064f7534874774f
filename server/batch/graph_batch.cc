// SPDX-License-Identifier: Apache-2.0
#include "server/batch/graph_batch.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/transforms/float_rows.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::batch {
namespace {

using store::CrystalView;
using tensor::TensorSpec;
using v1::GraphRecipe;

constexpr uint64_t kMaxIndex = std::numeric_limits<int32_t>::max();

// The column of a store's triplets for a line graph.
size_t TripletColumn(GraphRecipe::LineGraph kind) {
  return kind == GraphRecipe::M3GNET ? 2 : kind == GraphRecipe::TORCH ? 1 : 0;
}

plan::CostColumn TripletsOf(const store::CrystalStore& store, GraphRecipe::LineGraph kind) {
  if (kind == GraphRecipe::NO_LINE_GRAPH || store.triplets().empty()) return {};
  return plan::CostColumn(store.triplets().subspan(TripletColumn(kind)), 3);
}

// A tensor in the extent, its elements addressed by number; null when it is not asked for.
struct Column {
  uint8_t* data = nullptr;
  v1::DType dtype = v1::DTYPE_UNSPECIFIED;

  explicit operator bool() const { return data != nullptr; }
  uint8_t* At(uint64_t element) const { return data + element * tensor::DTypeSize(dtype); }

  // Of an index tensor: `value` at `element`.
  void SetIndex(uint64_t element, uint64_t value) const {
    if (dtype == v1::DTYPE_I32) {
      reinterpret_cast<int32_t*>(data)[element] = static_cast<int32_t>(value);
    } else {
      reinterpret_cast<int64_t*>(data)[element] = static_cast<int64_t>(value);
    }
  }
  // From `element` on.
  void SetIndices(uint64_t element, absl::Span<const uint8_t> from) const {
    for (size_t i = 0; i < from.size(); ++i) SetIndex(element + i, from[i]);
  }
  void SetFloats(uint64_t element, absl::Span<const double> from) const {
    float* const to = reinterpret_cast<float*>(data) + element;
    for (size_t i = 0; i < from.size(); ++i) to[i] = static_cast<float>(from[i]);
  }
};

absl::Status DoesNotFit(absl::string_view why) {
  return absl::DataLossError(absl::StrCat(why, "; drop the data set and ingest the source again"));
}

// The loops over edges have no branches that depend on them, so that the compiler takes several at a time.

bool AreBelow(absl::Span<const int32_t> numbers, size_t end) {
  uint32_t greatest = 0;
  for (const int32_t number : numbers) greatest = std::max(greatest, static_cast<uint32_t>(number));
  return numbers.empty() || greatest < end;
}

bool AreSorted(absl::Span<const int32_t> numbers) {
  int32_t falls = 0;
  for (size_t i = 1; i < numbers.size(); ++i) falls |= numbers[i] < numbers[i - 1] ? 1 : 0;
  return falls == 0;
}

// The first edge whose source is no atom or less than that of the edge before; source.size() when there is none.
size_t FirstOutOfPlace(absl::Span<const int32_t> source, size_t atoms) {
  const auto is_atom = [atoms](int32_t number) { return static_cast<uint32_t>(number) < atoms; };
  if (source.empty() || (AreSorted(source) && is_atom(source.front()) && is_atom(source.back()))) return source.size();
  size_t e = 0;
  while (is_atom(source[e]) && (e == 0 || source[e] >= source[e - 1])) ++e;
  return e;
}

// Where the edges of each atom begin, and the last ones end. REQUIRES: sorted numbers of atoms
void FindBuckets(absl::Span<const int32_t> source, size_t atoms, std::vector<int64_t>* buckets) {
  buckets->assign(atoms + 1, 0);
  int64_t* const end = buckets->data() + 1;
  for (size_t e = 0; e < source.size(); ++e) end[source[e]] = static_cast<int64_t>(e + 1);  // the last one stays
  for (size_t i = 1; i < atoms; ++i) end[i] = std::max(end[i], end[i - 1]);                 // atoms without edges
}

}  // namespace

// Where one batch's tensors begin.
struct GraphBatchMaker::Targets {
  Column atomic_number, x, frac_coords, lattice, edge_index, r, images, distance, rbf, lg_edge_index, cos, num_nodes,
      num_edges, num_triplets, batch, ptr, target, index, text_offsets, text_bytes, atom_features;
  std::vector<Column> sidecars;  // as the store has them

  Targets(const store::CrystalStore& store, const tensor::Layout& layout, uint8_t* extent)
      : sidecars(store.sidecars().size()) {
    const std::pair<absl::string_view, Column*> names[] = {{"atomic_number", &atomic_number},
                                                           {"x", &x},
                                                           {"frac_coords", &frac_coords},
                                                           {"lattice", &lattice},
                                                           {"edge_index", &edge_index},
                                                           {"r", &r},
                                                           {"images", &images},
                                                           {"distance", &distance},
                                                           {"rbf", &rbf},
                                                           {"lg_edge_index", &lg_edge_index},
                                                           {"cos", &cos},
                                                           {"num_nodes", &num_nodes},
                                                           {"num_edges", &num_edges},
                                                           {"num_triplets", &num_triplets},
                                                           {"batch", &batch},
                                                           {"ptr", &ptr},
                                                           {"target", &target},
                                                           {"index", &index},
                                                           {"text_offsets", &text_offsets},
                                                           {"text_bytes", &text_bytes},
                                                           {"atom_features", &atom_features}};
    for (size_t t = 0; t < layout.tensors().size(); ++t) {
      const TensorSpec& spec = layout.tensors()[t];
      const Column column = {extent + layout.offset_bytes(t), spec.dtype};
      for (const auto& [name, target] : names) {
        if (spec.name == name) *target = column;
      }
      for (size_t s = 0; s < sidecars.size(); ++s) {
        if (spec.name == store.sidecars()[s].name) sidecars[s] = column;
      }
    }
  }
};

GraphBatchMaker::GraphBatchMaker(std::shared_ptr<const store::CrystalStore> store, v1::Recipe recipe)
    : BatchMaker(std::move(recipe)), store_(std::move(store)), graph_(this->recipe().graph()) {
  costs_.samples = store_->samples();
  costs_.nodes = plan::CostColumn(store_->nodes());
  costs_.edges = plan::CostColumn(store_->edges());
  costs_.triplets = TripletsOf(*store_, graph_.line_graph());
  if (Has("text_offsets") || Has("text_bytes")) costs_.text_bytes = plan::CostColumn(store_->text_bytes());
}

bool GraphBatchMaker::Has(absl::string_view tensor) const {
  return std::count(graph_.tensors().begin(), graph_.tensors().end(), tensor) > 0;
}

absl::StatusOr<std::vector<TensorSpec>> GraphBatchMaker::TensorsFor(const Counts& total) const {
  if (graph_.index_dtype() == v1::DTYPE_I32 && std::max({total.nodes, total.edges, total.triplets}) > kMaxIndex) {
    return absl::InvalidArgumentError(absl::StrCat("recipe.graph.index_dtype: I32 is too small for a batch of ",
                                                   total.nodes, " nodes, ", total.edges, " edges and ", total.triplets,
                                                   " triplets; take I64 or smaller batches"));
  }
  std::vector<TensorSpec> tensors;
  for (const std::string& name : graph_.tensors()) {
    STOKER_ASSIGN_OR_RETURN(TensorSpec spec, Spec(name, total));
    tensors.push_back(std::move(spec));
  }
  return tensors;
}

absl::StatusOr<TensorSpec> GraphBatchMaker::Spec(const std::string& name, const Counts& total) const {
  const auto b = static_cast<int64_t>(total.samples);
  const auto n = static_cast<int64_t>(total.nodes);
  const auto e = static_cast<int64_t>(total.edges);
  const auto t = static_cast<int64_t>(total.triplets);
  const auto features = static_cast<int64_t>(store_->atom_feature_width());
  const v1::DType index = graph_.index_dtype();
  const v1::DType real = graph_.float_dtype();
  if (name == "atomic_number" || name == "batch") return TensorSpec{name, index, {n}};
  if (name == "x") return TensorSpec{name, real, {n, features}};
  if (name == "frac_coords") return TensorSpec{name, v1::DTYPE_F32, {n, 3}};
  if (name == "lattice") return TensorSpec{name, v1::DTYPE_F32, {b, 3, 3}};
  if (name == "edge_index") return TensorSpec{name, index, {2, e}};
  if (name == "r") return TensorSpec{name, real, {e, 3}};
  if (name == "images") return TensorSpec{name, v1::DTYPE_I32, {e, 3}};
  if (name == "distance") return TensorSpec{name, real, {e}};
  if (name == "rbf") return TensorSpec{name, real, {e, static_cast<int64_t>(graph_.rbf().bins())}};
  if (name == "lg_edge_index") return TensorSpec{name, index, {2, t}};
  if (name == "cos") return TensorSpec{name, real, {t}};
  if (name == "num_nodes" || name == "num_edges" || name == "num_triplets") return TensorSpec{name, index, {b}};
  if (name == "ptr") return TensorSpec{name, index, {b + 1}};
  if (name == "index") return TensorSpec{name, v1::DTYPE_I64, {b}};
  if (name == "text_offsets") return TensorSpec{name, v1::DTYPE_I64, {b + 1}};
  if (name == "text_bytes") return TensorSpec{name, v1::DTYPE_U8, {static_cast<int64_t>(total.text_bytes)}};
  if (name == "atom_features") {
    const auto rows = static_cast<int64_t>(store_->atom_features().size()) / std::max<int64_t>(features, 1);
    return TensorSpec{name, v1::DTYPE_F32, {rows, features}};
  }
  if (name == "target") {
    const auto width = static_cast<int64_t>(store_->manifest().target_width());
    return TensorSpec{name, v1::DTYPE_F32, width > 1 ? std::vector<int64_t>{b, width} : std::vector<int64_t>{b}};
  }
  for (const store::CrystalStore::Sidecar& sidecar : store_->sidecars()) {
    if (sidecar.name != name) continue;
    std::vector<int64_t> shape = {b};
    shape.insert(shape.end(), sidecar.shape.begin(), sidecar.shape.end());
    return TensorSpec{name, sidecar.dtype, std::move(shape)};
  }
  return absl::InternalError(absl::StrCat("recipe.graph.tensors: ", name, " is not completed"));
}

Counts GraphBatchMaker::CountsOf(uint64_t sample) const {
  return {1, costs_.nodes[sample], costs_.edges[sample], costs_.triplets[sample], costs_.text_bytes[sample]};
}

// What is the same for every batch, once.
absl::Status GraphBatchMaker::Prepare() {
  if (graph_.has_rbf() && centres_.empty()) {
    centres_ = transforms::RbfCentres(graph_.rbf().low(), graph_.rbf().high(), graph_.rbf().bins());
  }
  if (Has("x") && features_.empty()) {
    const absl::Span<const float> table = store_->atom_features();
    features_.resize(table.size() * tensor::DTypeSize(graph_.float_dtype()));
    transforms::RoundFloats(table, graph_.float_dtype(), features_.data());
  }
  return absl::OkStatus();
}

absl::Status GraphBatchMaker::WritePart(absl::Span<const uint64_t> samples, const Counts& before, const Counts& total,
                                        absl::Span<uint8_t> extent) {
  STOKER_RETURN_IF_ERROR(Prepare());
  STOKER_ASSIGN_OR_RETURN(const tensor::Layout layout, LayoutOfPart(samples.size(), before, total, extent.size()));
  const Targets out(*store_, layout, extent.data());
  if (before.samples == 0) {
    if (out.ptr) out.ptr.SetIndex(0, 0);
    if (out.text_offsets) out.text_offsets.SetIndex(0, 0);
    if (out.atom_features) {
      const absl::Span<const float> table = store_->atom_features();
      std::memcpy(out.atom_features.data, table.data(), table.size() * sizeof(float));
    }
  }
  Counts at = before;
  absl::StatusOr<CrystalView> next = FetchAhead(samples, 0);
  for (size_t i = 0; i < samples.size(); ++i) {
    absl::StatusOr<CrystalView> view = std::move(next);
    next = FetchAhead(samples, i + 1);
    absl::Status status = view.status();
    if (status.ok()) status = WriteSample(samples[i], *view, at, total, out);
    if (!status.ok()) return Annotate(status, NameSample(samples[i]));
    at += CountsOf(samples[i]);
  }
  transforms::LineGraph::Flush();
  return absl::OkStatus();
}

// The i-th sample; nothing beyond the last. Its edges are on their way to the cache when this returns: samples come
// from anywhere in the store, so no processor knows where it will read next.
absl::StatusOr<CrystalView> GraphBatchMaker::FetchAhead(absl::Span<const uint64_t> samples, size_t i) const {
  if (i >= samples.size()) return CrystalView();
  absl::StatusOr<CrystalView> view = store_->Sample(samples[i]);
  if (!view.ok()) return view;
  const auto fetch = [](auto span) {
    for (size_t at = 0; at < span.size(); at += 64 / sizeof(span[0])) __builtin_prefetch(span.data() + at);
  };
  fetch(view->edge_source);
  fetch(view->edge_destination);
  fetch(view->edge_r);
  return view;
}

absl::Status GraphBatchMaker::WriteSample(uint64_t sample, const CrystalView& view, const Counts& before,
                                          const Counts& total, const Targets& out) {
  const Counts counts = CountsOf(sample);
  Counts end = before;
  end += counts;
  if (end.samples > total.samples || end.nodes > total.nodes || end.edges > total.edges ||
      end.triplets > total.triplets || end.text_bytes > total.text_bytes) {
    return absl::InternalError("the batch is larger than it was said to be");
  }
  STOKER_RETURN_IF_ERROR(CheckGraph(view, counts));
  STOKER_RETURN_IF_ERROR(WriteNodes(view, before, out));
  WriteEdges(view, before, total, out);
  if (HasTriplets()) WriteTriplets(before, total, out);
  WriteRows(view, counts, before, sample, out);
  return absl::OkStatus();
}

// Whatever the shard holds, nothing is written outside the sample's place, and no edge leads to an atom that is not
// there.
absl::Status GraphBatchMaker::CheckGraph(const CrystalView& view, const Counts& counts) {
  const bool has_text = !costs_.text_bytes.empty();
  if (view.atoms() != counts.nodes || view.edges() != counts.edges ||
      (has_text && view.text.size() != counts.text_bytes)) {
    return DoesNotFit(absl::StrCat(view.atoms(), " atoms and ", view.edges(), " edges, the store's table says ",
                                   counts.nodes, " and ", counts.edges, "; or texts differ"));
  }
  if (const size_t e = FirstOutOfPlace(view.edge_source, view.atoms()); e < view.edges()) {
    return DoesNotFit(absl::StrCat("edge ", e, " is not in its place"));
  }
  FindBuckets(view.edge_source, view.atoms(), &bucket_);
  bool sound = AreBelow(view.edge_destination, view.atoms());
  for (size_t i = 0; i < view.atoms(); ++i) {
    sound &= view.triplet_degree[i] >= 0 && view.triplet_degree[i] <= bucket_[i + 1] - bucket_[i];
  }
  if (!sound) return DoesNotFit("an edge leads to no atom, or an atom has more triplets than edges");
  if (!HasTriplets()) return absl::OkStatus();
  line_graph_.Assign(graph_.line_graph(), bucket_, view.edge_destination, view.triplet_degree, view.edge_r);
  if (static_cast<uint64_t>(line_graph_.triplets()) == counts.triplets) return absl::OkStatus();
  return DoesNotFit(absl::StrCat(line_graph_.triplets(), " triplets, the store's table says ", counts.triplets));
}

absl::Status GraphBatchMaker::WriteNodes(const CrystalView& view, const Counts& before, const Targets& out) const {
  if (out.atomic_number) out.atomic_number.SetIndices(before.nodes, view.atomic_number);
  if (out.frac_coords) out.frac_coords.SetFloats(3 * before.nodes, view.frac_coords);
  for (size_t i = 0; out.batch && i < view.atoms(); ++i) out.batch.SetIndex(before.nodes + i, before.samples);
  if (!out.x) return absl::OkStatus();
  const uint64_t width = store_->atom_feature_width();
  const uint64_t row_bytes = width * tensor::DTypeSize(out.x.dtype);
  for (size_t i = 0; i < view.atoms(); ++i) {
    const uint64_t row = view.atomic_number[i];
    if (row >= store_->atom_features().size() / width) {
      return absl::InvalidArgumentError(absl::StrCat("the table of atom features has no row for atomic number ", row));
    }
    std::memcpy(out.x.At((before.nodes + i) * width), features_.data() + row * row_bytes, row_bytes);
  }
  return absl::OkStatus();
}

void GraphBatchMaker::WriteEdges(const CrystalView& view, const Counts& before, const Counts& total,
                                 const Targets& out) {
  if (out.edge_index) {
    const auto offset = static_cast<int64_t>(before.nodes);
    const v1::DType dtype = out.edge_index.dtype;
    transforms::OffsetIndices(view.edge_source, offset, dtype, out.edge_index.At(before.edges));
    transforms::OffsetIndices(view.edge_destination, offset, dtype, out.edge_index.At(total.edges + before.edges));
  }
  if (out.r) transforms::RoundFloats(view.edge_r, out.r.dtype, out.r.At(3 * before.edges));
  if (out.distance) transforms::RoundFloats(view.edge_distance, out.distance.dtype, out.distance.At(before.edges));
  if (out.images && view.edges() > 0) {
    std::memcpy(out.images.At(3 * before.edges), view.edge_image.data(), view.edge_image.size() * sizeof(int32_t));
  }
  if (out.rbf) {
    transforms::ExpandRbf(view.edge_distance, centres_, static_cast<float>(graph_.rbf().gamma()), out.rbf.dtype,
                          out.rbf.At(before.edges * centres_.size()));
  }
}

void GraphBatchMaker::WriteTriplets(const Counts& before, const Counts& total, const Targets& out) {
  uint8_t *first = nullptr, *second = nullptr;
  if (out.lg_edge_index) {
    first = out.lg_edge_index.At(before.triplets);
    second = out.lg_edge_index.At(total.triplets + before.triplets);
  }
  line_graph_.Write(graph_.index_dtype(), static_cast<int64_t>(before.edges), graph_.float_dtype(), first, second,
                    out.cos ? out.cos.At(before.triplets) : nullptr);
}

// What there is one of for each sample.
void GraphBatchMaker::WriteRows(const CrystalView& view, const Counts& counts, const Counts& before, uint64_t sample,
                                const Targets& out) const {
  const uint64_t row = before.samples;
  if (out.lattice) out.lattice.SetFloats(9 * row, view.lattice);
  if (out.num_nodes) out.num_nodes.SetIndex(row, counts.nodes);
  if (out.num_edges) out.num_edges.SetIndex(row, counts.edges);
  if (out.num_triplets) out.num_triplets.SetIndex(row, counts.triplets);
  if (out.ptr) out.ptr.SetIndex(row + 1, before.nodes + counts.nodes);
  if (out.target) out.target.SetFloats(row * view.target.size(), view.target);
  out.index.SetIndex(row, sample);
  if (out.text_offsets) out.text_offsets.SetIndex(row + 1, before.text_bytes + counts.text_bytes);
  if (out.text_bytes && !view.text.empty()) {
    std::memcpy(out.text_bytes.At(before.text_bytes), view.text.data(), view.text.size());
  }
  for (size_t s = 0; s < view.sidecars.size(); ++s) {
    if (!out.sidecars[s] || view.sidecars[s].empty()) continue;
    std::memcpy(out.sidecars[s].data + row * view.sidecars[s].size(), view.sidecars[s].data(), view.sidecars[s].size());
  }
}

std::string GraphBatchMaker::NameSample(uint64_t sample) const {
  return absl::StrCat("sample ", sample, " (", store_->SampleName(sample), ")");
}

}  // namespace stoker::batch
