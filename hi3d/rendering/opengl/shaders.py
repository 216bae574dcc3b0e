"""GLSL of the OpenGL backend."""

from hi3d.rendering.shading import AMBIENT_SHARE, KEY_LIGHT_DIRECTION, KEY_LIGHT_SHARE, MIN_ALPHA

OPAQUE_ALPHA = 1 - MIN_ALPHA / 2
"""What is at least this opaque in a BLEND material is drawn as solid."""

VERTEX_SHADER = """
uniform mat4 clip_from_world;
in vec3 position;
in vec2 uv;
in vec4 linear_rgba;
INTERPOLATION out vec2 fragment_uv;
INTERPOLATION out vec4 fragment_rgba;
out vec3 world;
out float camera_z;
void main() {
    gl_Position = clip_from_world * vec4(position, 1.0);
    fragment_uv = uv;
    fragment_rgba = linear_rgba;
    world = position;
    camera_z = gl_Position.w;
}
"""

FRAGMENT_SHADER = """
uniform sampler2D base_color;
uniform float min_alpha;
uniform float max_alpha;
uniform vec3 eye;
INTERPOLATION in vec2 fragment_uv;
INTERPOLATION in vec4 fragment_rgba;
in vec3 world;
in float camera_z;
out OUTPUT result;

vec3 normal() {
    vec3 n = normalize(cross(dFdx(world), dFdy(world)));
    return dot(n, eye - world) < 0.0 ? -n : n;
}

void main() {
#if NEEDS_COLOUR
    vec4 light = clamp(fragment_rgba, 0.0, 1.0);
#if TEXTURED
    light *= texture(base_color, fragment_uv);
#endif
#endif
    float alpha = 1.0;
#if SEE_THROUGH
    alpha = light.a;
    if (alpha < min_alpha || alpha >= max_alpha) discard;
#endif
#if MASKED
    alpha = 1.0;
#endif
#if SURFACE == 1
    result = gl_FrontFacing ? camera_z : -camera_z;
#elif SURFACE == 2
    result = vec4(normal(), gl_FrontFacing ? camera_z : -camera_z);
#else
#if KEY_LIGHT
    light.rgb *= AMBIENT_SHARE + KEY_LIGHT_SHARE * max(dot(normal(), KEY_LIGHT_DIRECTION), 0.0);
#endif
    // 1.055 x^(1/2.4) - 0.055 within 5e-5 on [0.0031308, 1]: roots are faster than powers.
    vec3 root2 = sqrt(light.rgb);
    vec3 root4 = sqrt(root2);
    vec3 curve = -0.0175713 * light.rgb + 0.6423896 * root2 + 0.7120831 * root4
        - 0.3368585 * sqrt(root4);
    vec3 srgb = mix(curve, 12.92 * light.rgb, lessThanEqual(light.rgb, vec3(0.0031308)));
    result = vec4(srgb * alpha, alpha);
#endif
}
"""

TRIANGLE_VERTEX_SHADER = """
#version 400
void main() {
    gl_Position = vec4(4.0 * (gl_VertexID / 2) - 1.0, 4.0 * (gl_VertexID % 2) - 1.0, 0.0, 1.0);
}
"""

AVERAGE_SHADER = """
uniform sampler2DMS samples;
out vec4 mean;
void main() {
    ivec2 corner = ivec2(gl_FragCoord.xy) * S;
    vec4 total = vec4(0.0);
    for (int y = 0; y < S; y++)
        for (int x = 0; x < S; x++)
            for (int i = 0; i < N; i++)
                total += texelFetch(samples, corner + ivec2(x, y), i);
    mean = total / float(N * S * S);
}
"""


def average_shader(supersampling: int, samples_per_pixel: int) -> str:
    """Fragment shader that gives the mean of all samples of S x S pixels.

    Both numbers are constants of the source, so that drivers unroll the loops: a software
    rasterizer takes twice as long over loops that end at a uniform.
    """
    head = f"#version 400\n#define S {supersampling}\n#define N {samples_per_pixel}\n"
    return head + AVERAGE_SHADER


def shader_sources(
    alpha_mode: str, textured: bool, surface: int = 0, key_lit: bool = False
) -> tuple[str, str]:
    """Vertex and fragment shader of one kind of material.

    Args:
        alpha_mode: of `ObjectPart`.
        textured: whether there is a texture.
        surface: what is drawn: 0 premultiplied sRGB with alpha, 1 camera z, 2 normal and camera z;
            z is negative on sides that GL takes for the back.
        key_lit: with `surface=0`, lit by the key light.
    """
    see_through = alpha_mode != "OPAQUE"
    definitions = {
        "OUTPUT": "float" if surface == 1 else "vec4",
        "SURFACE": surface,
        "TEXTURED": int(textured),
        "SEE_THROUGH": int(see_through),
        "MASKED": int(alpha_mode == "MASK"),
        "NEEDS_COLOUR": int(surface == 0 or see_through),
        "KEY_LIGHT": int(key_lit),
        "AMBIENT_SHARE": AMBIENT_SHARE,
        "KEY_LIGHT_SHARE": KEY_LIGHT_SHARE,
        "KEY_LIGHT_DIRECTION": f"vec3{KEY_LIGHT_DIRECTION}",
        # A cut-out's outline lies inside its triangles, where only shaded samples can be smooth.
        "INTERPOLATION": "sample" if alpha_mode == "MASK" and surface == 0 else "",
    }
    head = "#version 400\n" + "".join(f"#define {k} {v}\n" for k, v in definitions.items())
    return head + VERTEX_SHADER, head + FRAGMENT_SHADER
