
/// The stage's result, as planes.
fn stage_result(stage: &Stage, arena: &[f32], planes: &mut [f32]) {
    let (form, _) = stage.first;
    let channels = form.channels[2];
    let map = form.local.output_shape(form.map);
    let packed = &arena[form.memory.y..][..map.packed_len(channels)];
    unpack(packed, channels, map, planes);
}
